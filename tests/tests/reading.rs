//! What the library reads equals what the kernel showed of the same image through a mount.

use std::ops::ControlFlow;

use libxfsr::cache::OnDamage;
use libxfsr::dir;
use libxfsr::inode::Inode;
use libxfsr::units::Ino;
use xfsr_tests::corpus;
use xfsr_tests::view::{open, walk};

#[test]
fn every_image_reads_as_the_kernel_showed_it() {
    for recipe in corpus::selected().filter(|r| r.end != corpus::End::Dirty) {
        let Some(devices) = corpus::obtain(recipe.name) else { continue };
        let volume = open(&devices);
        let mut acls = 0;
        let (found, expected) = (walk(&volume), corpus::manifest(recipe.name));
        assert_eq!(found.len(), expected.len(), "{}: number of files", recipe.name);
        for (f, e) in found.iter().zip(expected) {
            acls += e.xattrs.keys().filter(|n| n.starts_with(b"system.posix_acl_")).count();
            assert_eq!(*f, e, "{}: {}", recipe.name, libxfsr::text::escape(&f.path));
        }
        assert!(
            acls > 0 || !recipe.parts.contains(&corpus::Part::Attributes),
            "{}: no access control list",
            recipe.name
        );
    }
}

#[test]
fn every_path_is_found_through_the_index() {
    for recipe in corpus::selected().filter(|r| r.end != corpus::End::Dirty) {
        let Some(devices) = corpus::obtain(recipe.name) else { continue };
        let volume = open(&devices);
        let root = volume.geometry.root_ino;
        for e in corpus::manifest(recipe.name) {
            let found = dir::resolve(&volume, root, &e.path);
            assert_eq!(found.ok(), Some(Ino(e.ino)), "{}: {}", recipe.name, libxfsr::text::escape(&e.path));
        }
        assert!(dir::resolve(&volume, root, b"/there is no such name").is_err());
    }
}

#[test]
fn names_are_handed_over_until_the_caller_breaks() {
    let Some(devices) = corpus::obtain("default") else { return };
    let volume = open(&devices);
    let root = Inode::read(&volume, volume.geometry.root_ino, OnDamage::Fail).expect("the root directory");
    let mut n = 0;
    dir::for_each(&volume, &root, OnDamage::Keep, &mut |_| {
        n += 1;
        if n == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .expect("entries");
    assert_eq!(n, 3);
}
