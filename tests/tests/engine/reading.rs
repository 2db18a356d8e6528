//! What an open filesystem shows of images that the kernel wrote equals what the kernel showed.

use crate::walk::walk;
use libxfsr::Error;
use libxfsr::engine::{Filesystem, Follow, Options};
use libxfsr::units::Ino;
use libxfsr::volume::Devices;
use std::collections::BTreeSet;
use xfsr_tests::{copy_sparse, corpus, oracle};

fn devices(d: &oracle::Devices) -> Devices {
    Devices { data: d.data.clone(), log: d.log.clone(), realtime: d.rt.clone() }
}

#[test]
fn every_image_reads_as_the_kernel_showed_it() {
    for recipe in corpus::selected().filter(|r| r.end != corpus::End::Dirty) {
        let Some(found) = corpus::obtain(recipe.name) else { continue };
        let fs = Filesystem::open_read_only(&devices(&found), &Options::default()).expect(recipe.name);
        let (seen, expected) = (walk(&fs), corpus::manifest(recipe.name));
        assert_eq!(seen.len(), expected.len(), "{}: number of files", recipe.name);
        for (f, e) in seen.iter().zip(&expected) {
            assert_eq!(f, e, "{}: {}", recipe.name, libxfsr::text::escape(&f.path));
        }
        assert!(matches!(fs.freeze(), Err(Error::ReadOnly)));
        let root = fs.root();
        for e in &expected {
            assert_eq!(root.resolve(&e.path, Follow::No).expect("a path").ino(), Ino(e.ino));
            assert_eq!(fs.inode(Ino(e.ino), None).expect("a number").stat().expect("an inode").size, e.size);
        }
        assert!(matches!(root.resolve(b"no/such", Follow::Yes), Err(Error::NotFound(_))));
    }
}

/// Places in a directory keep their meaning, whatever number of entries is taken at once.
#[test]
fn directories_are_read_in_parts() {
    for recipe in corpus::selected().filter(|r| r.end != corpus::End::Dirty).take(3) {
        let Some(found) = corpus::obtain(recipe.name) else { continue };
        let fs = Filesystem::open_read_only(&devices(&found), &Options::default()).expect(recipe.name);
        let directories = corpus::manifest(recipe.name).into_iter().filter(|e| e.kind == "dir");
        for d in directories {
            let directory = fs.inode(Ino(d.ino), None).expect("a directory");
            let whole = directory.entries(0, usize::MAX).expect("entries");
            assert_eq!(whole.next, None);
            for most in [1, 7] {
                let (mut next, mut seen) = (Some(0), Vec::new());
                // Of a directory with very many names the first will do.
                while let Some(from) = next.filter(|_| seen.len() < 300) {
                    let part = directory.entries(from, most).expect("entries");
                    seen.extend(part.entries);
                    next = part.next;
                }
                assert_eq!(seen, whole.entries[..seen.len()]);
                assert!(next.is_some() || seen.len() == whole.entries.len());
            }
            let names: BTreeSet<_> = whole.entries.iter().map(|e| &e.name).collect();
            assert_eq!(names.len(), whole.entries.len());
        }
    }
}

/// A filesystem that is opened for change and closed again is as it was; frozen, its log is clean.
#[test]
fn opened_frozen_and_closed() {
    for recipe in
        corpus::selected().filter(|r| r.end != corpus::End::Dirty && !r.guest && r.incompat == 0 && !r.metadir).take(4)
    {
        let Some(found) = corpus::obtain(recipe.name) else { continue };
        let dir = tempfile::tempdir().expect("a directory");
        let mut copy = devices(&found);
        for (part, name) in [(Some(&mut copy.data), "data"), (copy.log.as_mut(), "log")] {
            let Some(part) = part else { continue };
            let to = dir.path().join(name);
            copy_sparse(part, &to).expect("a copy");
            *part = to;
        }
        if copy.realtime.is_some() {
            continue;
        }
        let fs = Filesystem::open(&copy, &Options::default()).expect(recipe.name);
        // Exclusively.
        assert!(matches!(Filesystem::open(&copy, &Options::default()), Err(Error::Busy { .. })));
        fs.freeze().expect("a freeze");
        assert!(fs.freeze().is_err());
        let view = Filesystem::open_read_only(&copy, &Options::default()).expect("a view");
        assert_eq!(walk(&view), corpus::manifest(recipe.name));
        let clean = oracle::Devices { data: copy.data.clone(), log: copy.log.clone(), rt: None };
        let v = oracle::xfs_repair_n(&clean, &[]).expect("xfs_repair");
        assert!(v.clean(), "{}", v.output);
        fs.thaw().expect("a thaw");
        let root = fs.root();
        assert!(matches!(fs.clone().close(), Err(Error::Busy { .. })));
        drop(root);
        let sums = fs.statfs();
        fs.close().expect("closed");
        let again = Filesystem::open(&copy, &Options::default()).expect(recipe.name);
        assert_eq!(again.statfs(), sums);
        again.close().expect("closed");
        let v = oracle::xfs_repair_n(&clean, &[]).expect("xfs_repair");
        assert!(v.clean(), "{}", v.output);
    }
}
