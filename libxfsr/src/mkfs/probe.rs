//! What is known of a target before it is overwritten: its geometry, and what seems to be on it.

use super::options::Topology;
use crate::error::Result;
use crate::target::{FileTarget, Target, queue_attribute};

/// Something that a target already holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// What, with its article: "an existing filesystem (xfs)".
    pub what: &'static str,
    /// Where its mark was seen.
    pub offset: u64,
}

/// Marks: where, which bytes, what they mean.
const MARKS: &[(u64, &[u8], &str)] = &[
    (0, b"XFSB", "an existing filesystem (xfs)"),
    (1080, &[0x53, 0xef], "an existing filesystem (ext2, ext3 or ext4)"),
    (65536 + 64, b"_BHRfS_M", "an existing filesystem (btrfs)"),
    (1024, &[0x10, 0x20, 0xf5, 0xf2], "an existing filesystem (f2fs)"),
    (1024, &[0xe2, 0xe1, 0xf5, 0xe0], "an existing filesystem (erofs)"),
    (0, b"hsqs", "an existing filesystem (squashfs)"),
    (3, b"NTFS    ", "an existing filesystem (ntfs)"),
    (3, b"EXFAT   ", "an existing filesystem (exfat)"),
    (54, b"FAT1", "an existing filesystem (vfat)"),
    (82, b"FAT32   ", "an existing filesystem (vfat)"),
    (32769, b"CD001", "an existing filesystem (iso9660)"),
    (32769, b"NSR0", "an existing filesystem (udf)"),
    (65536 + 52, b"ReIsEr", "an existing filesystem (reiserfs)"),
    (32768, b"JFS1", "an existing filesystem (jfs)"),
    (1024, b"H+", "an existing filesystem (hfsplus)"),
    (65536, &[0x01, 0x16, 0x19, 0x70], "an existing filesystem (gfs2)"),
    (4096 + 24, &[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca], "an existing filesystem (bcachefs or bcache)"),
    (1030, &[0x34, 0x34], "an existing filesystem (nilfs2)"),
    (4086, b"SWAPSPACE2", "a swap area"),
    (4086, b"SWAP-SPACE", "a swap area"),
    (65526, b"SWAPSPACE2", "a swap area"),
    (0, b"LUKS\xba\xbe", "an encrypted volume (LUKS)"),
    (512, b"LABELONE", "a volume manager's physical volume (LVM2)"),
    (4096, &[0xfc, 0x4e, 0x2b, 0xa9], "a member of a RAID array (md)"),
    (0, &[0xfc, 0x4e, 0x2b, 0xa9], "a member of a RAID array (md)"),
    (512, b"EFI PART", "a partition table (gpt)"),
    (4096, b"EFI PART", "a partition table (gpt)"),
];

/// What the target seems to hold; none where nothing is recognised.
///
/// # Errors
/// [`crate::Error::Io`].
pub fn signature(target: &dyn Target) -> Result<Option<Found>> {
    let len = target.len();
    let mut head = vec![0; len.min(68 << 10) as usize];
    target.read_at(&mut head, 0)?;
    for &(offset, mark, what) in MARKS {
        let at = offset as usize;
        if head.get(at..at + mark.len()) == Some(mark) {
            return Ok(Some(Found { what, offset }));
        }
    }
    // A ZFS label repeats its mark, in either byte order, in a ring of 1 KiB slots.
    for slot in 0..128_usize {
        let at = (4 << 10) + slot * 1024;
        let mark = head.get(at..at + 8);
        if mark == Some(&[0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0]) || mark == Some(&[0, 0, 0, 0, 0, 0xba, 0xb1, 0x0c]) {
            return Ok(Some(Found { what: "a member of a pool (zfs)", offset: at as u64 }));
        }
    }
    let mut tail = [0; 512];
    if len >= 1024 {
        target.read_at(&mut tail, len - 512)?;
        if tail.starts_with(b"EFI PART") {
            return Ok(Some(Found { what: "a partition table (gpt, its second copy)", offset: len - 512 }));
        }
    }
    Ok(dos_table(&head).then_some(Found { what: "a partition table (dos)", offset: 446 }))
}

/// A DOS partition table: the boot mark, sane flags, and at least one partition.
fn dos_table(head: &[u8]) -> bool {
    if head.get(510..512) != Some(&[0x55, 0xaa]) {
        return false;
    }
    let entries: Vec<&[u8]> = head.get(446..510).map_or(Vec::new(), |t| t.chunks(16).collect());
    entries.iter().all(|e| e.first().is_some_and(|f| f & 0x7f == 0))
        && entries.iter().any(|e| e.get(4).is_some_and(|kind| *kind != 0))
}

/// Size, sectors and stripes. Of a device from the kernel's queue limits; a file has none.
pub fn topology(target: &FileTarget) -> Topology {
    let io = target.io();
    let mut t = Topology::plain(target.len());
    if let Some(number) = target.device_number() {
        t.logical_sector = io.logical;
        t.physical_sector = io.physical;
        let unit = queue_attribute(number, "minimum_io_size").unwrap_or(0);
        let width = queue_attribute(number, "optimal_io_size").unwrap_or(0);
        // A minimum that is only the sector, or no optimum beyond it, is no stripe.
        if unit > u64::from(io.physical) && width > unit && width.is_multiple_of(unit) {
            (t.stripe_unit, t.stripe_width) = (unit, width);
        }
    }
    t
}
