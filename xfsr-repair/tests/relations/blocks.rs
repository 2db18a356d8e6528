//! Blocks that are sound by themselves and do not fit what stands elsewhere: the log, the size of a directory, its data blocks,
//! the alignment of inode chunks.

use super::bench::{Bench, Finding};
use libxfsr::cache::OnDamage;
use libxfsr::error::ForkKind;
use libxfsr::format::BlockType;
use libxfsr::format::ag::{AGF, AGFL, AGI};
use libxfsr::format::attr::ATTR_ANY;
use libxfsr::format::btree::{BMBT_BLOCK, BNOBT_BLOCK, BmbtRec, Extent, INOBT_BLOCK};
use libxfsr::format::dir::DIR_ANY;
use libxfsr::format::inode::{Dinode, Format, fork_bytes_mut};
use libxfsr::format::superblock::SUPERBLOCK;
use libxfsr::format::symlink::SYMLINK;
use libxfsr::inode::{file, fork::ForkStore};
use libxfsr::space::{AgStore, AgTree};
use libxfsr::units::{AgBlock, AgNumber, FileBlock, FsBlock, Lsn};
use libxfsr::{btree, volume::Volume};

/// Far ahead of any log.
const AHEAD: Lsn = Lsn::new(0x7000_0000, 0);

fn has(findings: &[Finding], code: &str) -> bool {
    findings.iter().any(|f| f.code == code)
}

/// Where a block lies, in bytes, its length and its type; and the finding that its LSN must make.
type Stamped = (u64, usize, &'static BlockType, &'static str);

fn fill(root: &std::path::Path) {
    std::os::unix::fs::symlink("t".repeat(900), root.join("link")).unwrap();
    std::fs::create_dir(root.join("dir")).unwrap();
    for i in 0..600 {
        std::fs::write(root.join(format!("dir/a-name-of-some-length-{i:04}")), "").unwrap();
    }
    let file = root.join("file");
    std::fs::write(&file, "").unwrap();
    for i in 0..40 {
        let value = [7; 60];
        let name = format!("user.attribute-{i}");
        rustix::fs::setxattr(&file, name, &value, rustix::fs::XattrFlags::empty()).unwrap();
    }
    let holes = std::fs::File::create(root.join("holes")).unwrap();
    for i in 0..60u64 {
        std::os::unix::fs::FileExt::write_all_at(&holes, &[1; 4096], i * 8192).unwrap();
    }
}

fn stamped(bench: &Bench, volume: &Volume) -> Vec<Stamped> {
    let g = &volume.geometry;
    let (ag, sector, block) = (AgNumber(1), g.sector_size as usize, g.block_size as usize);
    let header = |n| g.header_daddr(ag, n).bytes();
    let mut all: Vec<Stamped> = vec![
        (0, sector, &SUPERBLOCK, "sb.lsn.lsn"),
        (header(1), sector, &AGF, "agf.lsn.lsn"),
        (header(2), sector, &AGI, "agi.lsn.lsn"),
        (header(3), sector, &AGFL, "agfl.lsn.lsn"),
    ];
    let trees: [(AgTree, &'static BlockType, &'static str); 2] =
        [(AgTree::Bno, &BNOBT_BLOCK, "bnobt.lsn.lsn"), (AgTree::Ino, &INOBT_BLOCK, "inobt.lsn.lsn")];
    for (tree, kind, code) in trees {
        let store = AgStore::new(volume, AgNumber(0), tree, OnDamage::Fail).unwrap();
        let at = btree::Node::root(&store, OnDamage::Fail).unwrap().at().unwrap();
        let at = g.agbno_to_daddr(AgNumber(0), AgBlock(u32::try_from(at.0).unwrap())).bytes();
        all.push((at, block, kind, code));
    }
    let leaf = libxfsr::format::dir::leaf_start(g).0;
    for (path, kind, at, of, code) in [
        ("/dir", ForkKind::Data, 0, &DIR_ANY, "directory.lsn.lsn"),
        ("/dir", ForkKind::Data, leaf, &DIR_ANY, "directory.lsn.lsn"),
        ("/file", ForkKind::Attr, 0, &ATTR_ANY, "xattr.lsn.lsn"),
        ("/link", ForkKind::Data, 0, &SYMLINK, "symlink.lsn.lsn"),
    ] {
        let inode = bench.inode(bench.find(path));
        let pieces = file::map_blocks(volume, &inode, kind, FileBlock(at), 1).unwrap().unwrap();
        all.push((pieces[0].0.bytes(), block, of, code));
    }
    let holes = bench.inode(bench.find("/holes"));
    assert_eq!(holes.core.format(ForkKind::Data), Some(Format::Btree));
    let store = ForkStore::new(volume, holes.ino, &holes.bytes, ForkKind::Data);
    let root = btree::Node::root(&store, OnDamage::Fail).unwrap();
    let at = g.fsblock_to_daddr(FsBlock(root.pointer(0).unwrap().0)).unwrap();
    all.push((at.bytes(), block, &BMBT_BLOCK, "bmbt.lsn.lsn"));
    all
}

#[test]
fn an_lsn_ahead_of_the_log_is_found_in_every_type_of_block() {
    let Some(bench) = Bench::filled(fill) else { return };
    assert!(bench.findings().is_empty() && !bench.stock_is_damaged());
    let volume = bench.volume();
    for (at, length, kind, code) in stamped(&bench, &volume) {
        let mut old = vec![0; length];
        volume.data_target().read_at(&mut old, at).unwrap();
        let mut new = old.clone();
        (kind.seal)(&mut new, AHEAD);
        bench.write(at, &new);
        let findings = bench.findings();
        assert_eq!(findings.len(), 1, "{code}: {findings:?}");
        assert!(has(&findings, code), "{code}: {findings:?}");
        assert!(bench.stock_is_damaged() || code == "sb.lsn.lsn", "{code}");
        bench.write(at, &old);
    }
    assert!(bench.findings().is_empty());
}

#[test]
fn a_wrong_owner_does_not_hide_what_is_wrong_with_the_contents() {
    let Some(bench) = Bench::filled(fill) else { return };
    let volume = bench.volume();
    // Of each block: where its owner ends, and bytes of its contents that no such block has.
    let changes: [(usize, usize, &[u8], [&str; 2]); 7] = [
        (52, 8, &[0x7f; 4], ["bnobt.owner.owner", "bnobt.leftsib.range"]),
        (52, 8, &[0x7f; 4], ["inobt.owner.owner", "inobt.leftsib.range"]),
        (48, 48, &[0, 1], ["dirdata.owner.owner", "dirdata.bestfree.mismatch"]),
        (56, 58, &[0, 77], ["danode.owner.owner", "danode.level.range"]),
        (56, 58, &[0, 1], ["attrleaf.owner.owner", "attrleaf.usedbytes.count"]),
        (40, 8, &[0, 0, 0xff, 0xff], ["symlink.owner.owner", "symlink.bytes.range"]),
        (64, 8, &[0x7f; 8], ["bmbt.owner.owner", "bmbt.leftsib.range"]),
    ];
    let mut blocks = stamped(&bench, &volume);
    for ((at, length, kind, _), (owner, content, bytes, codes)) in blocks.split_off(4).into_iter().zip(changes) {
        let mut old = vec![0; length];
        volume.data_target().read_at(&mut old, at).unwrap();
        let mut new = old.clone();
        new[owner - 1] ^= 5;
        new[content..content + bytes.len()].copy_from_slice(bytes);
        (kind.seal)(&mut new, Lsn(0));
        bench.write(at, &new);
        let findings = bench.findings();
        assert!(codes.iter().all(|c| has(&findings, c)), "{codes:?}: {findings:?}");
        bench.write(at, &old);
    }
    assert!(bench.findings().is_empty());
}

#[test]
fn a_block_far_behind_the_end_of_a_directory_is_found() {
    let fill = |root: &std::path::Path| {
        std::fs::create_dir(root.join("dir")).unwrap();
        for i in 0..50 {
            std::fs::write(root.join(format!("dir/{i:04}")), "").unwrap();
        }
    };
    let Some(bench) = Bench::filled(fill) else { return };
    let ino = bench.find("/dir");
    let extents = bench.inode(ino).core.extents(ForkKind::Data);
    assert_eq!(extents, 1);
    bench.edit_inode(ino, |bytes| {
        let core = Dinode::from_bytes_mut(bytes).unwrap();
        core.nblocks.set(core.nblocks.get() + 1);
        assert!(core.set_extents(ForkKind::Data, 2));
        // A block of AG 3 that nobody has.
        let extent = Extent { offset: 100_000, start: 3 << 15 | 9000, count: 1, unwritten: false };
        let record = BmbtRec::pack(&extent);
        let packed = [record.l0.get().to_be_bytes(), record.l1.get().to_be_bytes()].concat();
        fork_bytes_mut(bytes, ForkKind::Data)[16..32].copy_from_slice(&packed);
    });
    assert_eq!(bench.inode(ino).core.extents(ForkKind::Data), 2);
    let findings = bench.findings();
    assert!(has(&findings, "directory.block.extra"), "{findings:?}");
    assert!(bench.stock_is_damaged());
}

#[test]
fn a_file_of_impossible_size_is_read_without_overflow() {
    let fill = |root: &std::path::Path| std::fs::write(root.join("file"), [1; 4096]).unwrap();
    let Some(bench) = Bench::filled(fill) else { return };
    let ino = bench.find("/file");
    let start = bench.inode(ino).extents(&bench.volume(), ForkKind::Data).unwrap()[0].start;
    bench.edit_inode(ino, |bytes| {
        Dinode::from_bytes_mut(bytes).unwrap().size.set(u64::MAX);
        // The last file block that fits into a record.
        let record = BmbtRec::pack(&Extent { offset: (1 << 54) - 1, start, count: 1, unwritten: false });
        let packed = [record.l0.get().to_be_bytes(), record.l1.get().to_be_bytes()].concat();
        fork_bytes_mut(bytes, ForkKind::Data)[..16].copy_from_slice(&packed);
    });
    let (volume, inode) = (bench.volume(), bench.inode(ino));
    for offset in [u64::MAX - 4, u64::MAX - 4096, (1 << 63) - 4096, 1 << 62] {
        let read = file::read_at(&volume, &inode, offset, &mut [0; 100]);
        assert!(read.is_ok_and(|n| n <= 100), "{offset}");
    }
    assert!(has(&bench.findings(), "inode.size.range"), "{:?}", bench.findings());
}

#[test]
fn inode_chunks_are_aligned_and_their_holes_are_whole_clusters() {
    let Some(bench) = Bench::filled(|_| ()) else { return };
    let g = bench.volume().geometry;
    assert_eq!((g.inode_align, g.sparse_align), (8, 4));
    for (change, code) in [
        ("write -d recs[1].startino 160", "inobt.startino.range"),
        ("write -d recs[1].holemask 0x8000", "inobt.holemask.range"),
    ] {
        let Some(bench) = Bench::filled(|_| ()) else { return };
        bench.db(&["agi 0", "addr root", change]);
        let findings = bench.findings();
        assert!(has(&findings, code), "{findings:?}");
        assert!(bench.stock_is_damaged(), "{change}");
    }
    for field in ["newino", "dirino"] {
        let Some(bench) = Bench::filled(|_| ()) else { return };
        bench.db(&["agi 0", &format!("write -d {field} 5")]);
        let findings = bench.findings();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(has(&findings, &format!("agi.{field}.range")), "{findings:?}");
    }
}
