//! Which on-disk forms an image holds, counted through the library. Tests that rely on a form assert it, so that nobody tests
//! less than he thinks; `tests/corpus.rs` compares part of the counts with xfs_db.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use anyhow::{Context as _, Result};
use libxfsr::btree::kinds::{Inobt, Refcount};
use libxfsr::btree::{Cursor, Kind};
use libxfsr::cache::OnDamage;
use libxfsr::error::ForkKind;
use libxfsr::format::ag::{AGF, AGI, Agf, Agi};
use libxfsr::format::attr::{self as attr_format, AttrFlags};
use libxfsr::format::btree::{BMBT, Extent, REFCOUNT_COW};
use libxfsr::format::features::Version;
use libxfsr::format::inode::{FileKind, Flags, Format, fork_bytes, root_in_fork};
use libxfsr::format::{da, dir as dir_format, quota};
use libxfsr::inode::Inode;
use libxfsr::space::{AgStore, AgTree};
use libxfsr::units::{AgIno, AgNumber, FileBlock, FsBlock, Ino};
use libxfsr::volume::Volume;
use libxfsr::{attr, dir};
use zerocopy::FromBytes as _;

/// On-disk forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// A directory inside its inode.
    ShortDirectory,
    /// A directory of one block.
    BlockDirectory,
    /// A directory with a single index block.
    LeafDirectory,
    /// A directory with a tree of index blocks.
    NodeDirectory,
    /// A directory whose index has nodes above nodes.
    DeepDirectoryIndex,
    /// A directory with several free index blocks.
    SeveralFreeBlocks,
    /// A data fork of a directory or file in btree format.
    BtreeFork,
    /// A directory in btree format.
    BtreeDirectory,
    /// An extent map of at least two levels below the inode.
    DeepExtents,
    /// Attributes inside the inode.
    ShortAttributes,
    /// Attributes in one block.
    LeafAttributes,
    /// Attributes below a node.
    NodeAttributes,
    /// Attributes whose index has nodes above nodes.
    DeepAttributeIndex,
    /// An attribute's value in blocks of its own.
    RemoteAttributes,
    /// An attribute fork in btree format.
    BtreeAttrFork,
    /// A link's target inside the inode.
    LocalSymlink,
    /// A link's target in a block.
    RemoteSymlink,
    /// A link's target in more than one block.
    SplitSymlink,
    /// A device node.
    Device,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
    /// An inode with at least a thousand links.
    ManyLinks,
    /// An extent that is allocated and not written.
    UnwrittenExtents,
    /// Inode records with holes.
    SparseChunks,
    /// A free space btree of at least two levels.
    DeepFreeSpace,
    /// An inode btree of at least two levels.
    DeepInodes,
    /// A reverse mapping btree of at least two levels.
    DeepRmap,
    /// A reverse mapping btree of at least three levels.
    RmapLevel3,
    /// A refcount btree of at least two levels.
    DeepRefcount,
    /// A refcount btree of at least three levels.
    RefcountLevel3,
    /// An extent that several files share.
    SharedExtents,
    /// A staging extent of copy on write that nobody finished.
    CowLeftovers,
    /// An inode on an unlinked list.
    Orphans,
    /// A parent pointer.
    ParentPointers,
    /// A time after 2038.
    LateTimes,
    /// An inode with 64-bit extent counters.
    LargeCounters,
    /// A project id.
    Projects,
    /// An extent size hint, for space or for copies.
    SizeHints,
    /// A file on the realtime device.
    RealtimeFile,
    /// A realtime file in more than eight extents.
    FragmentedRealtime,
    /// Names that are compared without regard to case.
    CaseFolding,
    /// A quota record with a limit.
    QuotaLimits,
    /// A quota record over its soft limit, with a running timer.
    OverLimit,
}

/// How often each form occurs.
pub type Counts = BTreeMap<Form, u64>;

/// Counts the forms of an image.
pub fn count(volume: &Volume) -> Result<Counts> {
    let mut c = Counter { volume, counts: Counts::new() };
    let features = &volume.geometry.features;
    c.add(Form::CaseFolding, features.ascii_ci().into());
    for ag in volume.geometry.ags() {
        c.group(ag).with_context(|| format!("AG {ag}"))?;
    }
    if features.version.contains(Version::QUOTA) {
        let sb = &volume.superblock;
        for ino in [sb.uquotino, sb.gquotino, sb.pquotino].map(|n| n.get()).into_iter().filter(|n| *n != 0) {
            c.quota(Ino(ino)).with_context(|| format!("quota inode {ino}"))?;
        }
    }
    c.counts.retain(|_, n| *n > 0);
    Ok(c.counts)
}

struct Counter<'v> {
    volume: &'v Volume,
    counts: Counts,
}

impl Counter<'_> {
    fn add(&mut self, form: Form, n: u64) {
        *self.counts.entry(form).or_default() += n;
    }

    fn records<K: Kind>(&self, ag: AgNumber, tree: AgTree) -> Result<Vec<K::Record>> {
        let store = AgStore::new(self.volume, ag, tree, OnDamage::Fail)?;
        let (mut all, mut cursor) = (Vec::new(), Cursor::<K, _>::first(&store)?);
        while let Some(c) = &mut cursor {
            all.extend(c.record());
            if !c.advance()? {
                break;
            }
        }
        Ok(all)
    }

    fn group(&mut self, ag: AgNumber) -> Result<()> {
        let features = &self.volume.geometry.features;
        let agf = self.volume.ag_header(ag, 1, &AGF, OnDamage::Fail)?;
        let agi = self.volume.ag_header(ag, 2, &AGI, OnDamage::Fail)?;
        let (agf, agi) = (Agf::ref_from_prefix(&agf), Agi::ref_from_prefix(&agi));
        let (Ok((agf, _)), Ok((agi, _))) = (agf, agi) else { anyhow::bail!("short headers") };
        let deeper = |level: u32, than: u32| u64::from(level > than);
        self.add(Form::DeepFreeSpace, deeper(agf.bno_level.get(), 1));
        self.add(Form::DeepInodes, deeper(agi.level.get(), 1));
        self.add(Form::DeepRmap, deeper(agf.rmap_level.get(), 1));
        self.add(Form::RmapLevel3, deeper(agf.rmap_level.get(), 2));
        self.add(Form::DeepRefcount, deeper(agf.refcount_level.get(), 1));
        self.add(Form::RefcountLevel3, deeper(agf.refcount_level.get(), 2));
        let mut orphans = agi.unlinked.iter().filter(|n| n.get() != u32::MAX).count() as u64;
        if features.reflink() {
            for r in self.records::<Refcount>(ag, AgTree::Refcount)? {
                let cow = r.startblock.get() & REFCOUNT_COW != 0;
                self.add(if cow { Form::CowLeftovers } else { Form::SharedExtents }, 1);
            }
        }
        let sparse = features.sparse_inodes();
        for r in self.records::<Inobt>(ag, AgTree::Ino)? {
            self.add(Form::SparseChunks, (r.holemask(sparse) != 0).into());
            let used = !r.free.get() & !r.holes(sparse);
            for i in (0..64).filter(|i| used >> i & 1 == 1) {
                let ino = self.volume.geometry.join_ino(ag, AgIno(r.startino.get() + i));
                let inode = Inode::read(self.volume, ino, OnDamage::Fail)?;
                orphans += u64::from(inode.core.next_unlinked.get() != u32::MAX);
                self.inode(&inode).with_context(|| format!("inode {ino}"))?;
            }
        }
        self.add(Form::Orphans, orphans);
        Ok(())
    }

    fn inode(&mut self, inode: &Inode) -> Result<()> {
        let core = &inode.core;
        let flags = core.flags();
        let btree = core.format(ForkKind::Data) == Some(Format::Btree);
        self.add(Form::BtreeFork, btree.into());
        if btree {
            let root = root_in_fork(fork_bytes(&inode.bytes, ForkKind::Data), &BMBT)?;
            self.add(Form::DeepExtents, (root.level > 1).into());
        }
        let extents = inode.extents(self.volume, ForkKind::Data)?;
        match core.kind() {
            Some(FileKind::Directory) => {
                self.add(Form::BtreeDirectory, btree.into());
                self.directory(inode, &extents)?;
            }
            Some(FileKind::Symlink) if extents.is_empty() => self.add(Form::LocalSymlink, 1),
            Some(FileKind::Symlink) => {
                self.add(Form::RemoteSymlink, 1);
                self.add(Form::SplitSymlink, (extents.iter().map(|e| e.count).sum::<u64>() > 1).into());
            }
            Some(FileKind::CharDevice | FileKind::BlockDevice) => self.add(Form::Device, 1),
            Some(FileKind::Fifo) => self.add(Form::Fifo, 1),
            Some(FileKind::Socket) => self.add(Form::Socket, 1),
            Some(FileKind::Regular) => {
                let realtime = core.is_realtime() && !extents.is_empty();
                self.add(Form::RealtimeFile, realtime.into());
                self.add(Form::FragmentedRealtime, (realtime && extents.len() > 8).into());
            }
            None => anyhow::bail!("an inode in use without a kind"),
        }
        self.add(Form::ManyLinks, (core.nlink.get() >= 1000).into());
        self.add(Form::UnwrittenExtents, extents.iter().filter(|e| e.unwritten).count() as u64);
        self.add(Form::LateTimes, core.times().iter().any(|t| t.0 > i64::from(i32::MAX)).into());
        self.add(Form::LargeCounters, core.nrext64().into());
        self.add(Form::Projects, (core.project() != 0).into());
        let hints = Flags::EXTSIZE | Flags::EXTSZINHERIT;
        let hinted = flags.intersects(hints) || core.cowextsize.get() > 0;
        self.add(Form::SizeHints, hinted.into());
        self.attributes(inode)
    }

    fn directory(&mut self, inode: &Inode, extents: &[Extent]) -> Result<()> {
        let g = &self.volume.geometry;
        if inode.core.format(ForkKind::Data) == Some(Format::Local) {
            self.add(Form::ShortDirectory, 1);
            return Ok(());
        }
        let (index, free) = (dir_format::leaf_start(g), dir_format::free_start(g));
        if !extents.iter().any(|e| e.offset >= index.0) {
            self.add(Form::BlockDirectory, 1);
            return Ok(());
        }
        let root = dir::block(self.volume, inode, index, &dir_format::DIR_ANY, OnDamage::Fail)?;
        let root = root.context("a directory without index")?;
        if da::magic_of(&root) == Some(dir_format::LEAF1_MAGIC) {
            self.add(Form::LeafDirectory, 1);
            return Ok(());
        }
        self.add(Form::NodeDirectory, 1);
        let deep = da::magic_of(&root) == Some(da::NODE_MAGIC)
            && da::Node::from_bytes(&root).is_some_and(|n| n.header.level.get() > 1);
        self.add(Form::DeepDirectoryIndex, deep.into());
        let blocks: u64 = extents.iter().filter(|e| e.offset >= free.0).map(|e| e.count).sum();
        self.add(Form::SeveralFreeBlocks, (blocks >> g.dir_block_log > 1).into());
        Ok(())
    }

    fn attributes(&mut self, inode: &Inode) -> Result<()> {
        match inode.core.format(ForkKind::Attr) {
            Some(Format::Local) if inode.core.has_attr_fork() => self.add(Form::ShortAttributes, 1),
            Some(format @ (Format::Extents | Format::Btree)) => {
                self.add(Form::BtreeAttrFork, (format == Format::Btree).into());
                if inode.core.extents(ForkKind::Attr) > 0 {
                    self.attribute_blocks(inode)?;
                }
            }
            _ => {}
        }
        let mut parents = 0;
        attr::for_each(self.volume, inode, OnDamage::Fail, &mut |a| {
            parents += u64::from(a.is_ok_and(|a| a.flags.contains(AttrFlags::PARENT)));
            ControlFlow::Continue(())
        })?;
        self.add(Form::ParentPointers, parents);
        Ok(())
    }

    fn attribute_blocks(&mut self, inode: &Inode) -> Result<()> {
        let read = |at: u64| attr::block(self.volume, inode, FileBlock(at), &attr_format::ATTR_ANY, OnDamage::Fail);
        let root = read(0)?;
        if da::magic_of(&root) == Some(da::NODE_MAGIC) {
            self.add(Form::NodeAttributes, 1);
            let deep = da::Node::from_bytes(&root).is_some_and(|n| n.header.level.get() > 1);
            self.add(Form::DeepAttributeIndex, deep.into());
        } else {
            self.add(Form::LeafAttributes, 1);
        }
        for e in inode.extents(self.volume, ForkKind::Attr)? {
            // A remote value's block carries a magic number of its own.
            let mut bytes = vec![0; self.volume.geometry.block_size as usize];
            let at = self.volume.geometry.fsblock_to_daddr(FsBlock(e.start)).context("an address")?;
            self.volume.data_target().read_at(&mut bytes, at.bytes())?;
            self.add(Form::RemoteAttributes, bytes.starts_with(&attr_format::REMOTE_MAGIC.to_be_bytes()).into());
        }
        Ok(())
    }

    fn quota(&mut self, ino: Ino) -> Result<()> {
        let inode = Inode::read(self.volume, ino, OnDamage::Fail)?;
        // A quota file's size says nothing: its records are found by its extents.
        let (log, mut block) = (self.volume.geometry.block_log, vec![0; self.volume.geometry.block_size as usize]);
        for e in inode.extents(self.volume, ForkKind::Data)? {
            let at = self.volume.geometry.fsblock_to_daddr(FsBlock(e.start)).context("an address")?;
            for i in 0..e.count {
                self.volume.data_target().read_at(&mut block, at.bytes() + (i << log))?;
                for slot in quota::slots(&block).iter().filter(|s| s.diskdq.magic.get() == quota::MAGIC) {
                    let d = &slot.diskdq;
                    let soft = (d.blk_softlimit.get(), d.ino_softlimit.get());
                    let hard = (d.blk_hardlimit.get(), d.ino_hardlimit.get());
                    self.add(Form::QuotaLimits, (soft != (0, 0) || hard != (0, 0)).into());
                    let over = |limit: u64, used: u64, timer: u64| limit > 0 && used > limit && timer > 0;
                    let blocks = over(soft.0, d.bcount.get(), d.timer(d.btimer));
                    let inodes = over(soft.1, d.icount.get(), d.timer(d.itimer));
                    self.add(Form::OverLimit, (d.id.get() != 0 && (blocks || inodes)).into());
                }
            }
        }
        Ok(())
    }
}
