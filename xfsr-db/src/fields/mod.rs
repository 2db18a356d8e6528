//! The fields of every structure, by the names that xfs_db gives them.

mod ag;
mod attr;
mod btree;
mod dir;
mod dquot;
pub(crate) mod inode;
mod symlink;

use crate::field::Lines;
use crate::location::Type;
use libxfsr::volume::Volume;

/// The lines of a structure; none for a type that has no fields.
pub(crate) fn lines(volume: &Volume, kind: Type, bytes: &[u8]) -> Option<Lines> {
    let mut out = Lines::default();
    match kind {
        Type::Sb => ag::superblock(&mut out, bytes),
        Type::Agf => ag::agf(&mut out, volume, bytes),
        Type::Agi => ag::agi(&mut out, bytes),
        Type::Agfl => ag::agfl(&mut out, bytes),
        Type::Inode => inode::inode(&mut out, volume, bytes),
        Type::Dir3 => dir::block(&mut out, volume, bytes),
        Type::Attr3 => attr::block(&mut out, bytes),
        Type::Symlink => symlink::block(&mut out, bytes),
        Type::Bnobt | Type::Cntbt | Type::Inobt | Type::Finobt | Type::Rmapbt | Type::Refcntbt => {
            btree::short(&mut out, volume, kind, bytes);
        }
        Type::Bmapbta | Type::Bmapbtd => btree::long(&mut out, kind, bytes),
        Type::Dqblk => dquot::slot(&mut out, kind.part(bytes)),
        Type::Data | Type::Inodata | Type::Log | Type::Rtbitmap | Type::Rtsummary | Type::Text => return None,
    }
    Some(out)
}
