//! The core of an inode as the journal has it: the same fields as on disk, in the byte order of the machine.

use super::items::LogDinode;
use crate::format::inode::{Dinode, Flags2, Timestamp};
use crate::units::Lsn;
use zerocopy::FromZeros;
use zerocopy::little_endian::U64;

/// Copies the fields that are the same but for their byte order.
macro_rules! copy_fields {
    ($from:expr => $to:expr) => {
        copy_fields!(numbers $from => $to; magic mode metatype uid gid nlink projid_lo projid_hi big_nextents size nblocks extsize
            nextents anextents dmevmask dmstate flags generation changecount flags2 cowextsize ino);
        copy_fields!(bytes $from => $to; version format forkoff aformat pad2 uuid);
    };
    (numbers $from:expr => $to:expr; $($field:ident)*) => { $($to.$field.set($from.$field.get());)* };
    (bytes $from:expr => $to:expr; $($field:ident)*) => { $($to.$field = $from.$field;)* };
}

impl LogDinode {
    /// A time of an inode as it stands on disk. Times that count seconds and nanoseconds apart are two words in the journal, seconds first.
    pub fn time(raw: U64, bigtime: bool) -> Timestamp {
        let raw = raw.get();
        Timestamp(zerocopy::big_endian::U64::new(if bigtime { raw } else { raw.rotate_left(32) }))
    }
    fn logged_time(t: Timestamp, bigtime: bool) -> U64 {
        let raw = t.0.get();
        U64::new(if bigtime { raw } else { raw.rotate_left(32) })
    }

    /// As the journal has that core. The pointer to the next unlinked inode is none: it is logged with the inode's cluster.
    pub fn of(d: &Dinode) -> Self {
        let mut log = Self::new_zeroed();
        let big = d.bigtime();
        copy_fields!(d => log);
        log.atime = Self::logged_time(d.atime, big);
        log.mtime = Self::logged_time(d.mtime, big);
        log.ctime = Self::logged_time(d.ctime, big);
        log.crtime = Self::logged_time(d.crtime, big);
        log.next_unlinked.set(u32::MAX);
        log.lsn.set(d.lsn.get());
        log
    }

    /// As it stands on disk, with the disk's own pointer to the next unlinked inode.
    pub fn to_disk(&self, next_unlinked: u32, lsn: Lsn) -> Dinode {
        let mut d = Dinode::zeroed();
        let big = self.flags2.get() & Flags2::BIGTIME.bits() != 0;
        copy_fields!(self => d);
        d.atime = Self::time(self.atime, big);
        d.mtime = Self::time(self.mtime, big);
        d.ctime = Self::time(self.ctime, big);
        d.crtime = Self::time(self.crtime, big);
        d.next_unlinked.set(next_unlinked);
        d.lsn.set(lsn.0);
        d
    }
}
