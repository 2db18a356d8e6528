//! What seems to be on a target: marks of filesystems, partition tables and members of arrays.
//!
//! Marks only: where another prober also verifies checksums, what is damaged counts here as present, for the data behind it may be
//! wanted. Names are those that blkid(8) prints as the type.

use crate::error::Result;
use crate::target::Target;
use std::fmt;

/// What kind of thing a mark tells of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Filesystem,
    Swap,
    Encrypted,
    Member,
    Table,
}

/// Something that a target already holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    class: Class,
    /// Its type, as blkid(8) names it.
    pub name: &'static str,
    /// Where its mark was seen.
    pub offset: u64,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.class {
            Class::Filesystem => "an existing filesystem",
            Class::Swap => "a swap area",
            Class::Encrypted => "an encrypted volume",
            Class::Member => "a member of an array, pool or volume group",
            Class::Table => "a partition table",
        };
        write!(f, "{what} ({})", self.name)
    }
}

use Class::{Encrypted, Filesystem, Member, Swap, Table};

/// Marks: where, which bytes, what they mean. Those that tell least come last.
const MARKS: &[(u64, &[u8], Class, &str)] = &[
    (0, b"XFSB", Filesystem, "xfs"),
    (65536 + 64, b"_BHRfS_M", Filesystem, "btrfs"),
    (0, b"LUKS\xba\xbe", Encrypted, "crypto_LUKS"),
    (0x4000, b"SKUL\xba\xbe", Encrypted, "crypto_LUKS"),
    (3, b"-FVE-FS-", Encrypted, "BitLocker"),
    (0, b"LABELONE", Member, "LVM2_member"),
    (512, b"LABELONE", Member, "LVM2_member"),
    (1024, b"LABELONE", Member, "LVM2_member"),
    (1536, b"LABELONE", Member, "LVM2_member"),
    (0, b"HM\x01\x00", Member, "LVM1_member"),
    (0, b"HM\x02\x00", Member, "LVM1_member"),
    (4096, &[0xfc, 0x4e, 0x2b, 0xa9], Member, "linux_raid_member"),
    (0, &[0xfc, 0x4e, 0x2b, 0xa9], Member, "linux_raid_member"),
    (4096 + 24, &[0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9], Filesystem, "bcachefs"),
    (4096 + 24, &[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca], Member, "bcache"),
    (512 + 4, b"!Stra0tis\x86\xff\x02^\x41rh", Member, "stratis"),
    (4096 + 4, b"!Stra0tis\x86\xff\x02^\x41rh", Member, "stratis"),
    (0, b"dmvdo001", Member, "vdo"),
    (0, b"bluestore block device", Member, "ceph_bluestore"),
    (32, b"ORCLDISK", Member, "oracleasm"),
    (0, b"verity\0\0", Member, "DM_verity_hash"),
    (0, b"integrt\0", Member, "DM_integrity"),
    (0, b"SnAp", Member, "DM_snapshot_cow"),
    (0, b"UBI#", Member, "ubi"),
    (1 << 20, &[0x0d, 0xd0, 0x01, 0xc0], Member, "VMFS_volume_member"),
    (2 << 20, &[0x5e, 0xf1, 0xab, 0x2f], Filesystem, "VMFS"),
    (1024, &[0x10, 0x20, 0xf5, 0xf2], Filesystem, "f2fs"),
    (1024, &[0xe2, 0xe1, 0xf5, 0xe0], Filesystem, "erofs"),
    (0, b"hsqs", Filesystem, "squashfs"),
    (0, b"sqsh", Filesystem, "squashfs3"),
    (0, &[0x45, 0x3d, 0xcd, 0x28], Filesystem, "cramfs"),
    (0, &[0x28, 0xcd, 0x3d, 0x45], Filesystem, "cramfs"),
    (0, b"-rom1fs-", Filesystem, "romfs"),
    (0, &[0x31, 0x18, 0x10, 0x06], Filesystem, "ubifs"),
    (0, b"SFOZ", Filesystem, "zonefs"),
    (32, b"NXSB", Filesystem, "apfs"),
    (3, b"NTFS    ", Filesystem, "ntfs"),
    (3, b"EXFAT   ", Filesystem, "exfat"),
    (3, b"ReFS\0\0\0\0", Filesystem, "ReFS"),
    (54, b"FAT12   ", Filesystem, "vfat"),
    (54, b"FAT16   ", Filesystem, "vfat"),
    (54, b"MSDOS", Filesystem, "vfat"),
    (54, b"FAT     ", Filesystem, "vfat"),
    (82, b"FAT32   ", Filesystem, "vfat"),
    (82, b"MSWIN", Filesystem, "vfat"),
    (32769, b"CD001", Filesystem, "iso9660"),
    (32769, b"BEA01", Filesystem, "udf"),
    (32769, b"NSR0", Filesystem, "udf"),
    (65536 + 52, b"ReIsEr", Filesystem, "reiserfs"),
    (8192 + 52, b"ReIsEr", Filesystem, "reiserfs"),
    (65536, b"ReIsEr4", Filesystem, "reiser4"),
    (32768, b"JFS1", Filesystem, "jfs"),
    (1024, b"H+", Filesystem, "hfsplus"),
    (1024, b"HX", Filesystem, "hfsplus"),
    (1024, b"BD", Filesystem, "hfs"),
    (32, b"BFS1", Filesystem, "befs"),
    (32, b"1SFB", Filesystem, "befs"),
    (544, b"BFS1", Filesystem, "befs"),
    (544, b"1SFB", Filesystem, "befs"),
    (0, &[0xce, 0xfa, 0xad, 0x1b], Filesystem, "bfs"),
    (65536, &[0x01, 0x16, 0x19, 0x70], Filesystem, "gfs2"),
    (1024, b"OCFSV2", Filesystem, "ocfs2"),
    (2048, b"OCFSV2", Filesystem, "ocfs2"),
    (4096, b"OCFSV2", Filesystem, "ocfs2"),
    (8192, b"OCFSV2", Filesystem, "ocfs2"),
    (8, b"OracleCFS", Filesystem, "ocfs"),
    (1030, &[0x34, 0x34], Filesystem, "nilfs2"),
    (1024 + 16, &[0x7f, 0x13], Filesystem, "minix"),
    (1024 + 16, &[0x8f, 0x13], Filesystem, "minix"),
    (1024 + 16, &[0x68, 0x24], Filesystem, "minix"),
    (1024 + 16, &[0x78, 0x24], Filesystem, "minix"),
    (1024 + 24, &[0x5a, 0x4d], Filesystem, "minix"),
    (0x2000, &[0x49, 0xe8, 0x95, 0xf9], Filesystem, "hpfs"),
    (1024, &[0xf5, 0xfc, 0x01, 0xa5], Filesystem, "vxfs"),
    (8192 + 1372, &[0x54, 0x19, 0x01, 0x00], Filesystem, "ufs"),
    (65536 + 1372, &[0x19, 0x01, 0x54, 0x19], Filesystem, "ufs"),
    (262_144 + 1372, &[0x19, 0x01, 0x54, 0x19], Filesystem, "ufs"),
    (512, b"EFI PART", Table, "gpt"),
    (4096, b"EFI PART", Table, "gpt"),
    (0, &[0x0b, 0xe5, 0xa9, 0x41], Table, "sgi"),
    (508, &[0xda, 0xbe], Table, "sun"),
    (512, b"PM\0\0", Table, "mac"),
    (512, &[0x57, 0x45, 0x56, 0x82], Table, "bsd"),
    (64, &[0x57, 0x45, 0x56, 0x82], Table, "bsd"),
];

/// Marks at the end: distance from the end, bytes, meaning.
const END_MARKS: &[(u64, &[u8], Class, &str)] = &[
    (512, b"EFI PART", Table, "gpt, its second copy"),
    (4096, b"EFI PART", Table, "gpt, its second copy"),
    (1024, b"Intel Raid ISM Cfg Sig. ", Member, "isw_raid_member"),
    (512, &[0xde, 0x11, 0xde, 0x11], Member, "ddf_raid_member"),
    (512, &[0x11, 0xde, 0x11, 0xde], Member, "ddf_raid_member"),
    (512, b"$XIDE$", Member, "lsi_mega_raid_member"),
    (1024, b"NVIDIA", Member, "nvidia_raid_member"),
    (63 * 512, b"Promise Technology, Inc.", Member, "promise_fasttrack_raid_member"),
];

/// The part of a target that is read at once; marks behind it are read one by one.
const HEAD: u64 = 68 << 10;
/// Length of a ZFS label, of which there are two at each end.
const ZFS_LABEL: u64 = 256 << 10;

/// What the target seems to hold; none where nothing is recognised.
///
/// # Errors
/// [`crate::Error::Io`].
pub fn signature(target: &dyn Target) -> Result<Option<Found>> {
    let len = target.len();
    let mut head = vec![0; len.min(HEAD) as usize];
    target.read_at(&mut head, 0)?;
    for &(offset, mark, class, name) in MARKS {
        if is_at(target, &head, offset, mark)? {
            return Ok(Some(Found { class, name, offset }));
        }
    }
    if let Some(found) = extended(&head).or_else(|| swap(&head)).or_else(|| external_log(&head)) {
        return Ok(Some(found));
    }
    if let Some(found) = at_the_end(target, len)? {
        return Ok(Some(found));
    }
    for label in [0, ZFS_LABEL, len.saturating_sub(2 * ZFS_LABEL), len.saturating_sub(ZFS_LABEL)] {
        if let Some(found) = zfs(target, label)? {
            return Ok(Some(found));
        }
    }
    Ok(dos_table(&head).then_some(Found { class: Table, name: "dos", offset: 510 }))
}

fn is_at(target: &dyn Target, head: &[u8], offset: u64, mark: &[u8]) -> Result<bool> {
    let end = offset + mark.len() as u64;
    if end <= head.len() as u64 {
        return Ok(head.get(offset as usize..end as usize) == Some(mark));
    }
    if end > target.len() {
        return Ok(false);
    }
    let mut found = vec![0; mark.len()];
    target.read_at(&mut found, offset)?;
    Ok(found == mark)
}

fn little_endian(head: &[u8], offset: usize) -> Option<u32> {
    let bytes = head.get(offset..offset + 4)?;
    Some(bytes.iter().rev().fold(0, |n, b| n << 8 | u32::from(*b)))
}

/// The ext family, told apart by its features: a journal makes ext3 of ext2, anything that ext3 does not know makes ext4.
fn extended(head: &[u8]) -> Option<Found> {
    const SUPERBLOCK: usize = 1024;
    let found = |name| Some(Found { class: Filesystem, name, offset: 1080 });
    if head.get(SUPERBLOCK + 56..SUPERBLOCK + 58)? != [0x53, 0xef] || little_endian(head, SUPERBLOCK + 24)? > 6 {
        return None;
    }
    let [compatible, incompatible, read_only] = [92, 96, 100].map(|at| little_endian(head, SUPERBLOCK + at));
    let (compatible, incompatible, read_only) = (compatible?, incompatible?, read_only?);
    // A journal device; file types, recovery needed and meta block groups; sparse superblocks, large files and btree directories.
    if incompatible & 0x8 != 0 {
        return found("jbd");
    }
    if incompatible & !0x16 != 0 || read_only & !0x7 != 0 {
        return found("ext4");
    }
    found(if compatible & 0x4 != 0 { "ext3" } else { "ext2" })
}

/// Swap areas and images of hibernated systems, at the end of a page of any size that Linux has.
fn swap(head: &[u8]) -> Option<Found> {
    for page in [4096_usize, 8192, 16384, 32768, 65536] {
        let mark = head.get(page - 10..page)?;
        let name = match mark {
            b"SWAPSPACE2" | b"SWAP-SPACE" => "swap",
            b"S1SUSPEND\0" | b"S2SUSPEND\0" | b"ULSUSPEND\0" | b"LINHIB0001" => "swsuspend",
            _ => continue,
        };
        return Some(Found { class: Swap, name, offset: page as u64 - 10 });
    }
    None
}

/// An XFS log starts with a record: its magic, then cycle and version.
fn external_log(head: &[u8]) -> Option<Found> {
    let first = head.get(..16)?;
    let (magic, version) = (first.get(..4)?, first.get(8..12)?);
    let is_log = *magic == [0xfe, 0xed, 0xba, 0xbe] && (*version == [0, 0, 0, 1] || *version == [0, 0, 0, 2]);
    is_log.then_some(Found { class: Filesystem, name: "xfs_external_log", offset: 0 })
}

fn at_the_end(target: &dyn Target, len: u64) -> Result<Option<Found>> {
    for &(back, mark, class, name) in END_MARKS {
        if let Some(offset) = len.checked_sub(back)
            && is_at(target, &[], offset, mark)?
        {
            return Ok(Some(Found { class, name, offset }));
        }
    }
    // md: version 1.0 lies 8 to 12 KiB before the end, version 0.90 in the last whole 64 KiB.
    let md1 = (len.saturating_sub(8 << 10) & !4095, [0xfc, 0x4e, 0x2b, 0xa9]);
    let md0 = ((len & !65535).saturating_sub(65536), [0xfc, 0x4e, 0x2b, 0xa9]);
    let md0_swapped = (md0.0, [0xa9, 0x2b, 0x4e, 0xfc]);
    for (offset, mark) in [md1, md0, md0_swapped] {
        if offset > 0 && is_at(target, &[], offset, &mark)? {
            return Ok(Some(Found { class: Member, name: "linux_raid_member", offset }));
        }
    }
    Ok(None)
}

/// A ZFS label repeats its mark, in either byte order, in a ring of 1 KiB slots in its second half.
fn zfs(target: &dyn Target, label: u64) -> Result<Option<Found>> {
    const RING: u64 = 128 << 10;
    if label + ZFS_LABEL > target.len() {
        return Ok(None);
    }
    let mut ring = vec![0; RING as usize];
    target.read_at(&mut ring, label + RING)?;
    let is_mark = |slot: &[u8]| {
        slot.starts_with(&[0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0]) || slot.starts_with(&[0, 0, 0, 0, 0, 0xba, 0xb1, 0x0c])
    };
    let slot = ring.chunks(1024).position(is_mark);
    Ok(slot.map(|n| Found { class: Member, name: "zfs_member", offset: label + RING + n as u64 * 1024 }))
}

/// A DOS partition table: the boot mark and sane flags. It may be empty.
fn dos_table(head: &[u8]) -> bool {
    if head.get(510..512) != Some(&[0x55, 0xaa]) {
        return false;
    }
    let mut entries = head.get(446..510).map_or(&[][..], |t| t).chunks(16);
    entries.all(|e| e.first().is_some_and(|f| f & 0x7f == 0))
}

#[cfg(test)]
mod tests {
    use super::{END_MARKS, MARKS, signature};
    use crate::target::{Target as _, Xfile};

    const SIZE: u64 = (4 << 20) + 512;

    fn memory(len: u64) -> Xfile {
        let target = Xfile::new("target").expect("memory");
        target.set_len(len).expect("a length");
        target
    }

    fn holds(marks: &[(u64, &[u8])]) -> Option<String> {
        let target = memory(SIZE);
        for (offset, mark) in marks {
            target.write_at(mark, *offset).expect("a mark");
        }
        signature(&target).expect("it is read").map(|f| f.to_string())
    }

    #[test]
    fn every_mark_is_known_by_its_name() {
        assert_eq!(holds(&[]), None);
        let at_end = END_MARKS.iter().map(|&(back, mark, _, name)| (SIZE - back, mark, name));
        for (offset, mark, name) in MARKS.iter().map(|&(o, m, _, n)| (o, m, n)).chain(at_end) {
            let found = holds(&[(offset, mark)]).unwrap_or_default();
            assert!(found.ends_with(&format!("({name})")), "{name} at {offset}: {found}");
        }
    }

    #[test]
    fn labels_away_from_the_start_are_seen() {
        let ring = [0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0];
        for label in [0, 256 << 10, SIZE - (512 << 10), SIZE - (256 << 10)] {
            assert!(holds(&[(label + (128 << 10) + 5120, &ring)]).expect("a label").contains("zfs_member"), "{label}");
        }
        let md = [0xfc, 0x4e, 0x2b, 0xa9];
        for offset in [(SIZE - 8192) & !4095, (SIZE & !65535) - 65536] {
            assert!(holds(&[(offset, &md)]).expect("a member").contains("linux_raid_member"), "{offset}");
        }
        assert_eq!(holds(&[(12345, &md)]), None);
    }

    #[test]
    fn short_targets_are_no_trouble() {
        for len in [0, 1, 511, 512, 1080, 4096, 70_000] {
            assert_eq!(signature(&memory(len)).expect("it is read"), None, "{len}");
        }
    }

    #[test]
    fn a_boot_mark_over_wild_flags_is_no_table() {
        assert!(holds(&[(510, &[0x55, 0xaa])]).expect("a table").ends_with("(dos)"));
        assert_eq!(holds(&[(510, &[0x55, 0xaa]), (446, &[0x33])]), None);
    }
}
