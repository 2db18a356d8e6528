//! The metadata directory tree: what the kernel uses is clean, and each change of it is found. Stock xfs_repair 6.1 does not know it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;

use libxfsr::cache::OnDamage;
use libxfsr::check::{self, Outcome};
use libxfsr::control::Control;
use libxfsr::format::inode::seal_dinode;
use libxfsr::format::seal_checksum;
use libxfsr::inode::Inode;
use libxfsr::units::{Ino, Lsn};
use libxfsr::volume::{Devices, Volume};
use xfsr_tests::corpus;

fn checked(image: &std::path::Path) -> Outcome {
    let volume = Volume::open(&Devices::data(image)).expect("a volume");
    check::check(&volume, &Control::none()).expect("a check")
}

/// Changes an inode's bytes, with the checksum made right again; gives what was there.
fn change(file: &File, volume: &Volume, ino: Ino, f: impl Fn(&mut [u8])) -> (u64, Vec<u8>) {
    let inode = Inode::read(volume, ino, OnDamage::Fail).expect("an inode");
    let at = volume.geometry.ino_to_offset(ino).expect("an offset");
    let mut bytes = inode.bytes.clone();
    f(&mut bytes);
    seal_dinode(&mut bytes, Lsn(inode.core.lsn.get()));
    file.write_all_at(&bytes, at).unwrap();
    (at, inode.bytes)
}

#[test]
fn nothing_is_found_in_what_the_kernel_uses() {
    let Some(devices) = corpus::obtain("metadir") else { return };
    let outcome = checked(&devices.data);
    assert!(outcome.findings.is_empty() && outcome.not_checked.is_empty(), "{outcome}");
    assert!(outcome.counts.inodes > 600, "{outcome}");
}

#[test]
fn every_change_of_the_tree_is_found() {
    if corpus::obtain("metadir").is_none() {
        return;
    }
    let directory = tempfile::tempdir_in(corpus::directory()).unwrap();
    let image = corpus::copy("metadir", directory.path()).data;
    std::fs::set_permissions(&image, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&image).unwrap();
    let volume = Volume::open(&Devices::data(&image)).unwrap();
    let root = volume.geometry.root_ino;
    let tree = Ino(volume.superblock.metadirino.get());
    let groups = Ino(tree.0 + 1);
    let plain = corpus::manifest("metadir").into_iter().find(|e| e.path == b"files").expect("a directory");
    // Offsets in the inode: metatype 6, link count 16, flags2 120; in the fork at 176: the entry's name 185, its inode 194.
    type Change<'a> = (&'a str, &'a str, Ino, Box<dyn Fn(&mut [u8]) + 'a>);
    let number = |b: &mut [u8], ino: u64| b[194..198].copy_from_slice(&(ino as u32).to_be_bytes());
    let changes: Vec<Change<'_>> = vec![
        ("another type", "inode.metatype.flags", groups, Box::new(|b| b[7] = 2)),
        ("an unknown type", "inode.metatype.range", groups, Box::new(|b| b[7] = 99)),
        ("no metadata flag", "inode.metatype.flags", groups, Box::new(|b| b[127] &= !0x20)),
        ("neither flag nor type", "metapath.flags2.flags", groups, Box::new(|b| (b[127], b[7]) = (b[127] & !0x20, 0))),
        ("a user's directory with the flag", "inode.", Ino(plain.ino), Box::new(|b| b[127] |= 0x20)),
        ("permissions", "inode.mode.flags", groups, Box::new(|b| b[3] |= 0o55)),
        ("mutable", "inode.flags.flags", groups, Box::new(|b| b[91] &= !8)),
        ("link count", "nlinks.nlink.count", tree, Box::new(|b| b[19] = 7)),
        ("another name", "metapath.name.extra", tree, Box::new(|b| b[185] = b'z')),
        ("a user's directory in it", "directory.inumber.flags", tree, Box::new(|b| number(b, plain.ino))),
        ("a ring", "metapath.inode.unreachable", tree, Box::new(|b| number(b, tree.0))),
        ("nothing in it", "metapath.inode.unreachable", tree, Box::new(|b| (b[63], b[176], b[19]) = (6, 0, 2))),
    ];
    for (what, code, ino, f) in &changes {
        let (at, old) = change(&file, &volume, *ino, f);
        let outcome = checked(&image);
        file.write_all_at(&old, at).unwrap();
        let codes: Vec<String> = outcome.findings.iter().map(|f| f.code()).collect();
        assert!(outcome.is_damaged() && codes.iter().any(|c| c.starts_with(code)), "{what}: {codes:?}");
    }
    // The superblock that leads elsewhere.
    let mut sb = [0; 512];
    file.read_exact_at(&mut sb, 0).unwrap();
    for (what, ino) in [("the root directory", root.0), ("a user's file", plain.ino), ("nothing", 77)] {
        let mut bad = sb;
        bad[264..272].copy_from_slice(&ino.to_be_bytes());
        seal_checksum(&mut bad, 224);
        file.write_all_at(&bad, 0).unwrap();
        let outcome = checked(&image);
        assert!(outcome.is_damaged(), "metadirino names {what}: {outcome}");
    }
    file.write_all_at(&sb, 0).unwrap();
    let again = checked(&image);
    assert!(again.findings.is_empty(), "a change was not taken back: {again}");
}
