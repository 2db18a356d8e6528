//! Parent pointers; the stock tool of Debian does not know them.

use super::bench::{Bench, Finding};
use libxfsr::attr;
use libxfsr::error::ForkKind;
use libxfsr::format::inode::{Dinode, Format};
use libxfsr::units::Ino;

/// Name and value of a parent pointer as they stand side by side on disk, and the same with another generation.
fn pointer(bench: &Bench, ino: Ino) -> (Vec<u8>, Vec<u8>) {
    let all = attr::list(&bench.volume(), &bench.inode(ino)).unwrap();
    let a = all.iter().find(|a| a.parent().is_some()).expect("a parent pointer");
    let old = [&a.name[..], &a.value[..]].concat();
    let mut new = old.clone();
    *new.last_mut().unwrap() ^= 1;
    (old, new)
}

/// One pointer without its entry, one entry without its pointer, and nothing else.
fn one_differs(findings: &[Finding], path: &str) {
    let mut codes: Vec<&str> = findings.iter().map(|f| f.code.as_str()).collect();
    codes.sort_unstable();
    assert_eq!(codes, ["parent.pointer.extra", "parent.pointer.missing"], "{findings:?}");
    assert!(findings.iter().all(|f| f.path == path), "{findings:?}");
}

#[test]
fn a_pointer_to_another_generation_of_the_parent_is_found() {
    let Some(bench) = Bench::of("parent") else { return };
    let ino = bench.find("/reflink/original");
    assert_eq!(bench.inode(ino).core.format(ForkKind::Attr), Some(Format::Local));
    let (old, new) = pointer(&bench, ino);
    bench.replace(ino, ForkKind::Attr, &old, &new);
    one_differs(&bench.findings(), "/reflink/original");
}

#[test]
fn a_pointer_with_another_name_is_found() {
    let Some(bench) = Bench::of("parent") else { return };
    let ino = bench.find("/reflink/original");
    let (old, _) = pointer(&bench, ino);
    let new = [b"O", &old[1..]].concat();
    bench.replace(ino, ForkKind::Attr, &old, &new);
    let findings = bench.findings();
    one_differs(&findings, "/reflink/original");
    assert!(findings.iter().any(|f| f.text.contains("Original")), "{findings:?}");
}

#[test]
fn one_pointer_among_thousands_is_found() {
    let Some(bench) = Bench::of("parent") else { return };
    // Its pointers lie in blocks, and in each the hash covers name and parent but not the generation.
    let most = xfsr_tests::corpus::manifest("parent").into_iter().filter(|e| e.kind == "file").max_by_key(|e| e.nlink);
    let most = most.expect("a file");
    assert!(most.nlink > 500, "{most:?}");
    let ino = Ino(most.ino);
    let (old, new) = pointer(&bench, ino);
    bench.replace(ino, ForkKind::Attr, &old, &new);
    let findings = bench.findings();
    let path = findings.first().map_or("", |f| f.path.as_str()).to_owned();
    one_differs(&findings, &path);
    assert_eq!(bench.find(&path), ino);
}

#[test]
fn a_directory_of_another_generation_loses_all_its_children() {
    let Some(bench) = Bench::of("parent") else { return };
    let ino = bench.find("/reflink");
    let children = libxfsr::dir::entries(&bench.volume(), &bench.inode(ino)).unwrap().len() - 2;
    bench.edit_inode(ino, |b| {
        let core = Dinode::from_bytes_mut(b).unwrap();
        core.generation.set(core.generation.get().wrapping_add(1));
    });
    let findings = bench.findings();
    for code in ["parent.pointer.extra", "parent.pointer.missing"] {
        assert_eq!(findings.iter().filter(|f| f.code == code).count(), children, "{findings:?}");
    }
    assert_eq!(findings.len(), 2 * children);
}
