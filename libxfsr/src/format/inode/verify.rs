//! Which inodes are right: [`verify_dinode`] is the gate (what the kernel refuses to load), [`check_dinode`] adds what scrub and
//! repair object to.

use super::{
    Dinode, FileKind, Flags, Flags2, Format, MAGIC, METADATA_LINK, MetaType, VERSION, fork_bytes, root_in_fork,
};
use crate::error::{Corruption, ForkKind, Rule, Severity, Verdict};
use crate::format::btree::{BMBT, MAX_EXTENT, RTREFCOUNT, RTRMAP};
use crate::format::{Context, check_crc};
use crate::units::{AgIno, Ino, NULL_AGINO};

const N: &str = "inode";
/// Data extents of a directory end before the block address where its leaf section begins; this is the whole space in bytes: data,
/// leaf and free section, 32 GiB each.
const DIR_SPACE: u64 = 3 << 35;

struct Subject<'a> {
    bytes: &'a [u8],
    core: &'a Dinode,
    ino: Ino,
    at: &'a Context<'a>,
}

impl Subject<'_> {
    fn bad(&self, field: &'static str, rule: Rule) -> Box<Corruption> {
        Corruption::new(N, field, rule).in_inode(self.ino)
    }
    fn require(&self, ok: bool, field: &'static str, rule: Rule, found: impl std::fmt::Display, want: &str) -> Verdict {
        if ok { Ok(()) } else { Err(self.bad(field, rule).found(found).expected(want)) }
    }
}

/// Checks an inode's bytes, in use or free: everything that can be said without looking at another block. Gives the first rule
/// that is broken.
///
/// # Errors
/// The broken rule.
pub fn verify_dinode(bytes: &[u8], ino: Ino, at: &Context<'_>) -> Verdict {
    let Some(core) = Dinode::from_bytes(bytes) else {
        return Err(Corruption::new(N, "core", Rule::Truncated).in_inode(ino).found(bytes.len()));
    };
    let s = &Subject { bytes, core, ino, at };
    identity(s)?;
    let kind = core.kind();
    let (size, mode, g) = (core.size.get(), core.mode.get(), at.geometry);
    s.require(size >> 63 == 0, "size", Rule::Range, size, "less than 2^63")?;
    s.require(mode == 0 || kind.is_some(), "mode", Rule::Flags, format_args!("{mode:#o}"), "a kind of file")?;
    if size == 0 && matches!(kind, Some(FileKind::Directory | FileKind::Symlink)) {
        s.require(core.nlink.get() == 0, "size", Rule::Range, size, "more than 0 while it is linked")?;
    }
    counters(s)?;
    s.require(
        core.is_metadata() || core.metatype.get() == 0,
        "metatype",
        Rule::Flags,
        core.metatype,
        "0 outside the metadata directory tree",
    )?;
    let split = usize::from(core.forkoff) * 8 + super::CORE_SIZE;
    s.require(split <= bytes.len(), "forkoff", Rule::Range, core.forkoff, "inside the inode")?;
    let flags = core.flags();
    if mode != 0 && flags.contains(Flags::REALTIME) {
        s.require(g.rt_blocks > 0, "flags", Rule::Flags, "realtime", "no realtime file without a realtime section")?;
    }
    forks(s, kind)?;
    extent_size_hint(s, kind)?;
    flags2(s, kind)?;
    cow_extent_size_hint(s, kind)?;
    if core.is_metadata() {
        metadata_file(s, kind)?;
    }
    Ok(())
}

fn identity(s: &Subject<'_>) -> Verdict {
    let c = s.core;
    s.require(c.magic.get() == MAGIC, "magic", Rule::Magic, format_args!("{:#06x}", c.magic.get()), "0x494e")?;
    check_crc(N, s.bytes, super::CRC_OFFSET, s.at).map_err(|e| e.in_inode(s.ino))?;
    s.require(c.version == VERSION, "version", Rule::Range, c.version, "3")?;
    if c.ino.get() != s.ino.0 {
        return Err(s.bad("ino", Rule::Address).found(c.ino).expected(s.ino));
    }
    super::super::check_uuid(N, &c.uuid, s.at).map_err(|e| e.in_inode(s.ino))?;
    let next = c.next_unlinked.get();
    let (ag, _) = s.at.geometry.split_ino(s.ino);
    s.require(
        next == NULL_AGINO || s.at.geometry.is_valid_agino(ag, AgIno(next)),
        "next_unlinked",
        Rule::Range,
        next,
        "none, or an inode of this AG",
    )
}

fn counters(s: &Subject<'_>) -> Verdict {
    let c = s.core;
    if c.nrext64() {
        s.require(s.at.geometry.features.nrext64(), "flags2", Rule::Flags, "nrext64", "the nrext64 feature")?;
        s.require(c.anextents.get() == 0, "nrext64_pad", Rule::Range, c.anextents, "0")?;
    } else {
        s.require(c.big_nextents.get() == 0, "v3_pad", Rule::Range, c.big_nextents, "0")?;
    }
    if c.is_free() {
        return Ok(());
    }
    let (data, attr) = (c.extents(ForkKind::Data), c.extents(ForkKind::Attr));
    let blocks = c.nblocks.get();
    s.require(
        data.saturating_add(attr) <= blocks,
        "nblocks",
        Rule::Count,
        blocks,
        "at least one block for each extent",
    )?;
    let limit = if c.is_realtime() { s.at.geometry.blocks.saturating_add(s.at.geometry.rt_blocks) } else { 1 << 54 };
    s.require(blocks <= limit, "nblocks", Rule::Range, blocks, "no more than the devices have")?;
    if c.is_dir() {
        s.require(
            data <= DIR_SPACE >> s.at.geometry.block_log,
            "nextents",
            Rule::Range,
            data,
            "no more than a directory has blocks",
        )?;
    }
    Ok(())
}

fn forks(s: &Subject<'_>, kind: Option<FileKind>) -> Verdict {
    let c = s.core;
    if c.forkoff != 0 {
        let ok = match Format::from_u8(c.format) {
            Some(Format::Dev) => c.forkoff == 1,
            Some(Format::Local | Format::Extents | Format::Btree) => {
                usize::from(c.forkoff) * 8 < s.bytes.len().saturating_sub(super::CORE_SIZE)
            }
            Some(Format::MetaBtree) => {
                s.at.geometry.features.metadir()
                    && usize::from(c.forkoff) * 8 < s.bytes.len().saturating_sub(super::CORE_SIZE)
            }
            Some(Format::Uuid) | None => false,
        };
        s.require(ok, "forkoff", Rule::Range, c.forkoff, "1 for devices, else inside the inode")?;
    }
    match kind {
        None => {}
        Some(k) if k.is_special() => {
            s.require(c.format == Format::Dev as u8, "format", Rule::Flags, c.format, "0 (dev)")?;
            s.require(c.extents(ForkKind::Data) == 0, "nextents", Rule::Count, c.extents(ForkKind::Data), "0")?;
        }
        Some(_) => fork(s, ForkKind::Data)?,
    }
    if c.forkoff != 0 {
        // The kernel asks this of free inodes too: they have no attribute fork, so an offset without a format is damage.
        return fork(s, ForkKind::Attr);
    }
    // The kernel writes 0 into inodes of a new cluster and 2 when it frees one.
    s.require(
        c.aformat == Format::Extents as u8 || c.aformat == 0,
        "aformat",
        Rule::Flags,
        c.aformat,
        "2 (extents) without an attribute fork",
    )?;
    s.require(c.extents(ForkKind::Attr) == 0, "anextents", Rule::Count, c.extents(ForkKind::Attr), "0")
}

fn fork(s: &Subject<'_>, which: ForkKind) -> Verdict {
    let c = s.core;
    let room = c.fork_size(which, s.bytes.len());
    let (count, size) = (c.extents(which), c.size.get());
    let (field, counter) = if which == ForkKind::Data { ("format", "nextents") } else { ("aformat", "anextents") };
    let raw = if which == ForkKind::Data { c.format } else { c.aformat };
    let in_fork = |v: Verdict| v.map_err(|e| e.in_fork(which, None));
    let format = Format::from_u8(raw);
    if which == ForkKind::Data && c.is_dir() && size > 0 && size <= room as u64 {
        in_fork(s.require(format == Some(Format::Local), field, Rule::Flags, raw, "1 (local), as it fits"))?;
    }
    in_fork(match format {
        Some(Format::Local) => {
            if which == ForkKind::Data {
                s.require(!c.is_reg(), field, Rule::Flags, raw, "not local in a regular file")?;
                s.require(size <= room as u64, "size", Rule::Range, size, "at most the fork's size")?;
            }
            s.require(count == 0, counter, Rule::Count, count, "0 in local format")
        }
        Some(Format::Extents) => {
            s.require(count <= room as u64 / 16, counter, Rule::Range, count, "no more than fit into the fork")
        }
        Some(Format::Btree) => {
            let max = c.max_extents(which);
            s.require(
                count > room as u64 / 16 && count <= max,
                counter,
                Rule::Range,
                count,
                "more than fit into the fork",
            )?;
            btree_root(s, which)
        }
        Some(Format::MetaBtree) => {
            s.require(
                s.at.geometry.features.metadir()
                    && which == ForkKind::Data
                    && matches!(c.metatype(), Some(MetaType::RtRmap | MetaType::RtRefcount)),
                field,
                Rule::Flags,
                raw,
                "a realtime group's tree",
            )?;
            s.require(count == 0, counter, Rule::Count, count, "0 in a metadata btree")?;
            btree_root(s, which)
        }
        _ => Err(s.bad(field, Rule::Flags).found(raw).expected("local, extents or btree")),
    })
}

fn btree_root(s: &Subject<'_>, which: ForkKind) -> Verdict {
    let (layout, lowest, levels) = match s.core.metatype() {
        Some(MetaType::RtRmap) if which == ForkKind::Data => (&RTRMAP, 0, 15),
        Some(MetaType::RtRefcount) if which == ForkKind::Data => (&RTREFCOUNT, 0, 15),
        _ => {
            let l = &s.at.geometry.max_levels;
            (&BMBT, 1, u16::from(if which == ForkKind::Data { l.bmap_data } else { l.bmap_attr }))
        }
    };
    let root = root_in_fork(fork_bytes(s.bytes, which), layout).map_err(|e| e.in_inode(s.ino))?;
    s.require(root.level >= lowest && root.level < levels, "level", Rule::Range, root.level, "a level of this tree")?;
    s.require(root.numrecs > 0 || lowest == 0, "numrecs", Rule::Count, root.numrecs, "at least 1")
}

fn hint_limits(s: &Subject<'_>, field: &'static str, hint: u32, unit: u64, realtime: bool) -> Verdict {
    if hint == 0 {
        return Ok(());
    }
    let bytes = u64::from(hint) << s.at.geometry.block_log;
    s.require(bytes.is_multiple_of(unit), field, Rule::Range, hint, "whole allocation units")?;
    s.require(u64::from(hint) <= MAX_EXTENT, field, Rule::Range, hint, "at most 2097151 blocks")?;
    s.require(realtime || hint <= s.at.geometry.agblocks / 2, field, Rule::Range, hint, "at most half an AG")
}

fn extent_size_hint(s: &Subject<'_>, kind: Option<FileKind>) -> Verdict {
    let (flags, hint, g) = (s.core.flags(), s.core.extsize.get(), s.at.geometry);
    let (own, inherit) = (flags.contains(Flags::EXTSIZE), flags.contains(Flags::EXTSZINHERIT));
    let realtime = flags.contains(Flags::REALTIME);
    let unit = u64::from(g.block_size) * if realtime { u64::from(g.rt_extent_size) } else { 1 };
    s.require(
        !own || kind == Some(FileKind::Regular),
        "flags",
        Rule::Flags,
        format_args!("{flags:?}"),
        "extsize only in regular files",
    )?;
    s.require(
        !inherit || kind == Some(FileKind::Directory),
        "flags",
        Rule::Flags,
        format_args!("{flags:?}"),
        "extszinherit only in directories",
    )?;
    s.require(!(own || inherit) || hint != 0, "extsize", Rule::Range, hint, "more than 0, as its flag is set")?;
    s.require(
        own || inherit || hint == 0 || s.core.is_free(),
        "extsize",
        Rule::Range,
        hint,
        "0, as its flag is not set",
    )?;
    hint_limits(s, "extsize", hint, unit, realtime)
}

fn flags2(s: &Subject<'_>, kind: Option<FileKind>) -> Verdict {
    let (f, c, features) = (s.core.flags2(), s.core, &s.at.geometry.features);
    if f.contains(Flags2::REFLINK) {
        s.require(features.reflink(), "flags2", Rule::Flags, "reflink", "the reflink feature")?;
        s.require(kind == Some(FileKind::Regular), "flags2", Rule::Flags, "reflink", "only in regular files")?;
        s.require(
            !c.is_realtime() || features.metadir(),
            "flags2",
            Rule::Flags,
            "reflink and realtime",
            "one of them without realtime groups",
        )?;
    }
    s.require(
        !f.contains(Flags2::BIGTIME) || features.bigtime(),
        "flags2",
        Rule::Flags,
        "bigtime",
        "the bigtime feature",
    )?;
    s.require(
        !f.contains(Flags2::METADATA) || features.metadir(),
        "flags2",
        Rule::Flags,
        "metadata",
        "the metadir feature",
    )
}

fn cow_extent_size_hint(s: &Subject<'_>, kind: Option<FileKind>) -> Verdict {
    let (hint, features) = (s.core.cowextsize.get(), &s.at.geometry.features);
    if features.zoned() && s.core.metatype() == Some(MetaType::RtRmap) {
        // The field counts the zone's used blocks there.
        return Ok(());
    }
    let set = s.core.flags2().contains(Flags2::COWEXTSIZE);
    if set {
        s.require(features.reflink(), "flags2", Rule::Flags, "cowextsize", "the reflink feature")?;
        s.require(
            matches!(kind, Some(FileKind::Regular | FileKind::Directory)),
            "flags2",
            Rule::Flags,
            "cowextsize",
            "only in files and directories",
        )?;
        s.require(hint != 0, "cowextsize", Rule::Range, hint, "more than 0, as its flag is set")?;
        s.require(
            !s.core.is_realtime() || features.metadir(),
            "flags2",
            Rule::Flags,
            "cowextsize and realtime",
            "one of them without realtime groups",
        )?;
    }
    s.require(set || hint == 0 || s.core.is_free(), "cowextsize", Rule::Range, hint, "0, as its flag is not set")?;
    hint_limits(s, "cowextsize", hint, u64::from(s.at.geometry.block_size), s.core.is_realtime())
}

fn metadata_file(s: &Subject<'_>, kind: Option<FileKind>) -> Verdict {
    let c = s.core;
    let Some(meta) = c.metatype() else {
        return Err(s.bad("metatype", Rule::Range).found(c.metatype).expected("0 to 8"));
    };
    let ok = match kind {
        Some(FileKind::Directory) => meta == MetaType::Dir,
        Some(FileKind::Regular) => meta != MetaType::Dir,
        _ => false,
    };
    s.require(ok, "metatype", Rule::Flags, c.metatype, "the kind of this file")?;
    s.require(c.mode.get() & 0o7777 == 0, "mode", Rule::Flags, format_args!("{:#o}", c.mode.get()), "no permissions")?;
    s.require(c.uid.get() == 0 && c.gid.get() == 0, "uid", Rule::Range, c.uid, "0, and group 0")?;
    let mut needed = Flags::IMMUTABLE | Flags::SYNC | Flags::NOATIME | Flags::NODUMP | Flags::NODEFRAG;
    if kind == Some(FileKind::Directory) {
        needed |= Flags::NOSYMLINKS;
    }
    s.require(
        c.flags().contains(needed),
        "flags",
        Rule::Flags,
        format_args!("{:#x}", c.flags.get()),
        "immutable, sync, noatime, nodump, nodefrag; in directories nosymlinks",
    )?;
    let never =
        Flags::REALTIME | Flags::RTINHERIT | Flags::EXTSIZE | Flags::EXTSZINHERIT | Flags::APPEND | Flags::FILESTREAM;
    s.require(
        !c.flags().intersects(never) && !c.flags2().contains(Flags2::DAX),
        "flags",
        Rule::Flags,
        format_args!("{:#x}", c.flags.get()),
        "no data placement",
    )
}

/// Everything that scrub and repair find in an inode's own bytes: the verdict of [`verify_dinode`], then, where that is good,
/// what is legal to load and still wrong or odd (severity tells). Unlike the gate it reports every finding.
pub fn check_dinode(bytes: &[u8], ino: Ino, at: &Context<'_>, report: &mut dyn FnMut(Box<Corruption>)) {
    if let Err(e) = verify_dinode(bytes, ino, at) {
        report(e);
        return;
    }
    let Some(core) = Dinode::from_bytes(bytes) else { return };
    let s = &Subject { bytes, core, ino, at };
    let mut note = |v: Verdict| {
        if let Err(e) = v {
            report(e);
        }
    };
    note(s.require(
        Flags::all().contains(core.flags()),
        "flags",
        Rule::Flags,
        format_args!("{:#x}", core.flags.get()),
        "known bits",
    ));
    note(s.require(
        Flags2::all().contains(core.flags2()),
        "flags2",
        Rule::Flags,
        format_args!("{:#x}", core.flags2.get()),
        "known bits",
    ));
    // Only what is linked from nowhere stands on an unlinked list.
    note(s.require(
        core.next_unlinked.get() == NULL_AGINO || (core.nlink.get() == 0 && !core.is_free()),
        "next_unlinked",
        Rule::Range,
        core.next_unlinked,
        "none",
    ));
    if core.is_free() {
        note(s.require(core.nblocks.get() == 0, "nblocks", Rule::Count, core.nblocks, "0 in a free inode"));
        let flags = core.flags();
        let needs = Flags::REALTIME | Flags::NEWRTBM | Flags::EXTSIZE | Flags::EXTSZINHERIT;
        note(s.require(
            !flags.intersects(needs),
            "flags",
            Rule::Flags,
            format_args!("{:#x}", (flags & needs).bits()),
            "0 in a free inode",
        ));
        // Whoever allocates the inode sets these, and nobody asks before; the kernel leaves zeroes.
        let odd = [
            s.require(core.nlink.get() == 0, "nlink", Rule::Count, core.nlink, "0 in a free inode"),
            s.require(
                (flags - needs).is_empty(),
                "flags",
                Rule::Flags,
                format_args!("{:#x}", (flags - needs).bits()),
                "0 in a free inode",
            ),
        ];
        for verdict in odd {
            note(verdict.map_err(|c| c.severity(Severity::Warning)));
        }
        return;
    }
    let (kind, flags, size) = (core.kind(), core.flags(), core.size.get());
    note(s.require(
        core.has_attr_fork() || core.aformat == super::Format::Extents as u8,
        "aformat",
        Rule::Flags,
        core.aformat,
        "2 (extents) without an attribute fork",
    ));
    let bitmap = core.is_metadata() || ino.0 == s.at.geometry.root_ino.0.wrapping_add(1);
    note(s.require(
        bitmap || !flags.contains(Flags::NEWRTBM),
        "newrtbm",
        Rule::Flags,
        1,
        "0 but in the realtime bitmap's inode",
    ));
    note(s.require(core.pad2 == [0; 12], "pad2", Rule::Range, "other bytes", "zeroes"));
    note(s.require(core.nlink.get() <= super::MAX_LINK, "nlink", Rule::Range, core.nlink, "at most 2147483647"));
    note(s.require(
        !core.is_metadata() || core.nlink.get() >= METADATA_LINK,
        "nlink",
        Rule::Count,
        core.nlink,
        "a link to a metadata file",
    ));
    let directory = kind == Some(FileKind::Directory);
    for (bit, name) in
        [(Flags::RTINHERIT, "rtinherit"), (Flags::PROJINHERIT, "projinherit"), (Flags::NOSYMLINKS, "nosymlinks")]
    {
        note(s.require(directory || !flags.contains(bit), "flags", Rule::Flags, name, "only in directories"));
    }
    let file = kind == Some(FileKind::Regular);
    note(s.require(
        file || !flags.contains(Flags::REALTIME),
        "flags",
        Rule::Flags,
        "realtime",
        "only in regular files",
    ));
    // What no kernel before 6.17 let anybody set on such an inode does no harm there.
    for (odd, name, want) in [
        (flags.contains(Flags::PREALLOC) && !file, "prealloc", "only in regular files"),
        (
            flags.intersects(Flags::IMMUTABLE | Flags::APPEND) && !file && !directory,
            "immutable or append",
            "only in files and directories",
        ),
    ] {
        let verdict = s.require(!odd, "flags", Rule::Flags, name, want);
        note(verdict.map_err(|c| c.severity(Severity::Warning)));
    }
    note(s.require(
        flags.intersection(Flags::FILESTREAM | Flags::REALTIME) != Flags::FILESTREAM | Flags::REALTIME,
        "flags",
        Rule::Flags,
        "filestream and realtime",
        "one of them",
    ));
    note(s.require(
        !core.flags2().contains(Flags2::DAX) || file || directory,
        "flags2",
        Rule::Flags,
        "dax",
        "only in files and directories",
    ));
    let limit = match kind {
        Some(FileKind::Directory) => 1 << 35,
        Some(FileKind::Symlink) => 1024,
        Some(FileKind::Regular) => at.geometry.max_file_size(),
        _ => 0,
    };
    note(s.require(size <= limit, "size", Rule::Range, size, "what this kind of file may have"));
    for (field, (_, nanos)) in ["atime", "mtime", "ctime", "crtime"].into_iter().zip(core.times()) {
        // The realtime bitmap keeps a sequence number in its access time.
        if flags.contains(Flags::NEWRTBM) && field == "atime" {
            continue;
        }
        note(s.require(nanos < 1_000_000_000, field, Rule::Range, nanos, "less than 10^9 nanoseconds"));
    }
    if core.uid.get() == u32::MAX || core.gid.get() == u32::MAX {
        note(Err(s
            .bad("uid", Rule::Range)
            .severity(Severity::Warning)
            .found(core.uid)
            .expected("not the number that means none")));
    }
}

/// What the kernel looks at when it reads a cluster of inodes.
pub(super) fn verify_cluster(bytes: &[u8], at: &Context<'_>) -> Verdict {
    let g = at.geometry;
    let Some((ag, agbno)) = g.daddr_to_ag(at.daddr) else {
        return Err(Corruption::new(N, "daddr", Rule::Range).at_daddr(at.daddr));
    };
    let first = u64::from(agbno.0) << g.inopb_log;
    for (i, inode) in bytes.chunks_exact(g.inode_size as usize).enumerate() {
        let Some(core) = Dinode::from_bytes(inode) else { continue };
        let agino = u32::try_from(first.saturating_add(i as u64)).unwrap_or(u32::MAX);
        let bad =
            |field, rule| Corruption::new(N, field, rule).at_daddr(at.daddr).in_inode(g.join_ino(ag, AgIno(agino)));
        if core.magic.get() != MAGIC {
            return Err(bad("magic", Rule::Magic).found(format_args!("{:#06x}", core.magic.get())).expected("0x494e"));
        }
        if core.version != VERSION {
            return Err(bad("version", Rule::Range).found(core.version).expected(VERSION));
        }
        let next = core.next_unlinked.get();
        if next != NULL_AGINO && !g.is_valid_agino(ag, AgIno(next)) {
            return Err(bad("next_unlinked", Rule::Range).found(next));
        }
    }
    Ok(())
}
