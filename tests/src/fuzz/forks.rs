//! Inodes and what lies in their forks.

use super::Input;
use libxfsr::error::ForkKind;
use libxfsr::format::attr::{self, ShortAttrs};
use libxfsr::format::btree::{BMBT, RTREFCOUNT, RTRMAP};
use libxfsr::format::dir::{self, ShortDir};
use libxfsr::format::inode::{
    Dinode, Fork, check_dinode, device_numbers, fork_bytes, root_in_fork, seal_dinode, verify_dinode,
};
use libxfsr::units::{Ino, Lsn};

/// A whole inode.
pub(super) fn inode(input: &Input<'_>) {
    let at = input.at();
    let g = input.geometry;
    let number = Ino(input.daddr.0 << 1 | u64::from(input.choice & 1));
    let mut bytes = input.bytes.to_vec();
    // As it came, of any length; then as an inode of this filesystem.
    for stamped in [false, true] {
        if stamped {
            bytes.resize(g.inode_size as usize, 0);
            if let Some(core) = Dinode::from_bytes_mut(&mut bytes) {
                core.magic.set(libxfsr::format::inode::MAGIC);
                core.version = 3;
                core.ino.set(number.0);
                core.uuid = g.meta_uuid;
            }
            seal_dinode(&mut bytes, Lsn(1 << 32));
        }
        let _ = verify_dinode(&bytes, number, &at);
        let mut findings = 0;
        check_dinode(&bytes, number, &at, &mut |_| findings += 1);
        assert!(findings < 1000, "{findings} findings in one inode");
        let Some(core) = Dinode::from_bytes(&bytes) else { continue };
        let _ = (core.kind(), core.flags(), core.flags2(), core.metatype(), core.project(), core.times());
        for kind in [ForkKind::Data, ForkKind::Attr] {
            let _ = (core.extents(kind), core.max_extents(kind), core.fork_range(kind, bytes.len()));
            let raw = fork_bytes(&bytes, kind);
            assert!(raw.len() <= bytes.len());
            let _ = device_numbers(raw);
            match Fork::of(&bytes, kind) {
                Ok(Fork::Local(local)) if kind == ForkKind::Attr => attributes(local, input),
                Ok(Fork::Local(local)) if core.is_dir() => entries(local, input),
                Ok(Fork::Extents(all)) => assert!(all.len() <= raw.len() / 16),
                Ok(Fork::Btree(root)) => drop(root_in_fork(root, &BMBT).map(|r| r.pointers.len())),
                Ok(Fork::MetaBtree(root)) => {
                    let _ = root_in_fork(root, &RTRMAP).map(|r| (r.records.len(), r.pointers.len()));
                    let _ = root_in_fork(root, &RTREFCOUNT).map(|r| (r.records.len(), r.pointers.len()));
                }
                _ => {}
            }
        }
    }
}

fn entries(fork: &[u8], input: &Input<'_>) {
    let _ = dir::verify_short(fork, Ino(input.daddr.0), input.geometry);
    if let Some(d) = ShortDir::from_bytes(fork, input.geometry) {
        let mut bytes = 0;
        for e in d.entries().flatten() {
            let _ = dir::hash_name(input.geometry, e.name);
            bytes += e.name.len() + 3;
        }
        assert!(bytes <= fork.len(), "more entries than bytes");
        let _ = (d.header_size(), d.entries().remaining());
    }
}

fn attributes(fork: &[u8], input: &Input<'_>) {
    let _ = attr::verify_short(fork, Ino(input.daddr.0), input.geometry);
    let mut n = 0;
    for a in ShortAttrs::new(fork).flatten() {
        n += 1;
        let _ = attr::hash_attr(input.geometry, a.flags, a.name, a.value);
        let _ = attr::ParentRec::from_value(a.value).map(|_| attr::parent_hash(input.geometry, a.name, Ino(7)));
    }
    assert!(n <= fork.len(), "more attributes than bytes");
}

/// A directory in an inode.
pub(super) fn directory_short(input: &Input<'_>) {
    entries(input.bytes, input);
}

/// Attributes in an inode.
pub(super) fn attribute_short(input: &Input<'_>) {
    attributes(input.bytes, input);
}
