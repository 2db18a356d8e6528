use super::{Blocks, Leaf, Path, each_with_hash, find, fix_hash, next, shrink, split};
use crate::error::{Corruption, Error, Result, Rule};
use crate::format::BlockType;
use crate::format::da::{BlockInfo, DA_NODE, NODE_MAGIC, Node, NodeHeader, lsn_info, seal_info};
use crate::units::FileBlock;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;
use zerocopy::FromBytes;

/// Blocks of memory. The smallest nodes that split and join in every way.
const BLOCK: usize = 64 + 8 * 8;

static TOY: BlockType = BlockType { name: "toy", log_type: 0, lsn: lsn_info, verify: |_, _| Ok(()), seal: seal_info };

/// Pairs of hash and number, 32 bits each, behind their count.
struct Toy;

fn pairs(leaf: &[u8]) -> Vec<(u32, u32)> {
    let count = usize::from(leaf[56]);
    let word = |at: usize| u32::from_be_bytes(leaf[at..at + 4].try_into().unwrap());
    (0..count).map(|i| (word(64 + i * 8), word(68 + i * 8))).collect()
}

fn set_pairs(leaf: &mut [u8], pairs: &[(u32, u32)]) {
    leaf[56] = u8::try_from(pairs.len()).unwrap();
    for (i, (hash, id)) in pairs.iter().enumerate() {
        leaf[64 + i * 8..][..4].copy_from_slice(&hash.to_be_bytes());
        leaf[68 + i * 8..][..4].copy_from_slice(&id.to_be_bytes());
    }
}

const MAX: usize = (BLOCK - 64) / 8;

impl Leaf for Toy {
    const KIND: &'static BlockType = &TOY;
    const MAGIC: u16 = 0x7071;
    fn init(leaf: &mut [u8]) {
        leaf[56] = 0;
    }
    fn last_hash(leaf: &[u8]) -> Option<u32> {
        pairs(leaf).last().map(|p| p.0)
    }
    fn is_small(leaf: &[u8]) -> bool {
        pairs(leaf).len() <= MAX / 2
    }
    fn fit(left: &[u8], right: &[u8]) -> bool {
        pairs(left).len() + pairs(right).len() <= MAX - MAX / 4
    }
    fn append(left: &mut [u8], right: &[u8]) -> Result<()> {
        let all = [pairs(left), pairs(right)].concat();
        set_pairs(left, &all);
        Ok(())
    }
}

#[derive(Default)]
struct Memory {
    blocks: BTreeMap<u64, Vec<u8>>,
    /// How many blocks there may be.
    most: usize,
}

impl Memory {
    fn new(most: usize) -> Self {
        let mut m = Self { blocks: BTreeMap::new(), most };
        m.create(&TOY, Toy::MAGIC).unwrap();
        m
    }
}

impl Blocks for Memory {
    fn root(&self) -> FileBlock {
        FileBlock(3)
    }
    fn block(&mut self, at: FileBlock) -> Result<&[u8]> {
        Ok(self.block_mut(at)?)
    }
    fn block_mut(&mut self, at: FileBlock) -> Result<&mut [u8]> {
        let c = Corruption::new("datree", "block", Rule::Missing);
        self.blocks.get_mut(&at.0).map(Vec::as_mut_slice).ok_or_else(|| c.into())
    }
    fn create(&mut self, _kind: &'static BlockType, magic: u16) -> Result<FileBlock> {
        if self.blocks.len() >= self.most {
            return Err(Error::NoSpace("no block".into()));
        }
        let at = (3..).find(|n| !self.blocks.contains_key(n)).unwrap();
        let mut bytes = vec![0; BLOCK];
        let (info, _) = BlockInfo::mut_from_prefix(&mut bytes).unwrap();
        info.magic.set(magic);
        info.blkno.set(at * 8);
        self.blocks.insert(at, bytes);
        Ok(FileBlock(at))
    }
    fn set_kind(&mut self, at: FileBlock, kind: &'static BlockType) -> Result<()> {
        let node = BlockInfo::ref_from_prefix(self.block(at)?).unwrap().0.magic.get() == NODE_MAGIC;
        assert_eq!(node, kind == &DA_NODE);
        Ok(())
    }
    fn free(&mut self, at: FileBlock, _kind: &'static BlockType) -> Result<()> {
        assert_ne!(at, self.root());
        assert!(self.blocks.remove(&at.0).is_some());
        Ok(())
    }
    fn locate(&self, c: Box<Corruption>, _at: FileBlock) -> Box<Corruption> {
        c
    }
}

fn insert(m: &mut Memory, hash: u32, id: u32) {
    let path = find::<Toy, _>(m, hash).unwrap();
    let put = |all: &mut Vec<(u32, u32)>| {
        let at = all.partition_point(|p| p.0 < hash);
        all.insert(at, (hash, id));
    };
    let mut all = pairs(m.block(path.leaf).unwrap());
    if all.len() < MAX {
        put(&mut all);
        set_pairs(m.block_mut(path.leaf).unwrap(), &all);
        return fix_hash::<Toy, _>(m, &path).unwrap();
    }
    let share = |left: &mut [u8], right: &mut [u8]| {
        let mut all = pairs(left);
        put(&mut all);
        let upper = all.split_off(all.len() / 2);
        set_pairs(left, &all);
        set_pairs(right, &upper);
        Ok(())
    };
    split::<Toy, _>(m, &path, share).unwrap();
}

fn locate(m: &mut Memory, hash: u32, id: u32) -> Option<Path> {
    each_with_hash::<Toy, _, _>(m, hash, |path, leaf| {
        Ok(match pairs(leaf).contains(&(hash, id)) {
            true => ControlFlow::Break(path.clone()),
            false => ControlFlow::Continue(()),
        })
    })
    .unwrap()
}

fn remove(m: &mut Memory, hash: u32, id: u32) -> bool {
    let Some(path) = locate(m, hash, id) else { return false };
    let mut all = pairs(m.block(path.leaf).unwrap());
    all.retain(|p| *p != (hash, id));
    set_pairs(m.block_mut(path.leaf).unwrap(), &all);
    shrink::<Toy, _>(m, &path).unwrap();
    true
}

/// Walks the whole tree: levels, hashes, siblings, and no block beside it. Returns what is in it, and its height.
fn check(m: &mut Memory) -> (BTreeSet<(u32, u32)>, u16) {
    fn walk(m: &Memory, at: u64, level: Option<u16>, seen: &mut Vec<(u16, u64)>, all: &mut Vec<(u32, u32)>) -> u32 {
        let bytes = &m.blocks[&at];
        let (header, _) = NodeHeader::ref_from_prefix(bytes).unwrap();
        assert_eq!(header.info.blkno.get(), at * 8, "a block keeps its own address");
        if header.info.magic.get() == Toy::MAGIC {
            assert!(level.is_none_or(|l| l == 0));
            seen.push((0, at));
            all.extend(pairs(bytes));
            return Toy::last_hash(bytes).unwrap_or(0);
        }
        let here = header.level.get();
        assert!(level.is_none_or(|l| l == here) && here > 0);
        seen.push((here, at));
        let node = Node::from_bytes(bytes).unwrap();
        assert!(!node.entries.is_empty());
        for e in node.entries {
            let last = walk(m, e.before.get().into(), Some(here - 1), seen, all);
            assert_eq!(last, e.hashval.get());
        }
        node.entries.last().unwrap().hashval.get()
    }
    let (mut seen, mut all) = (Vec::new(), Vec::new());
    walk(m, 3, None, &mut seen, &mut all);
    assert!(all.is_sorted_by_key(|p| p.0));
    assert_eq!(seen.len(), m.blocks.len());
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), seen.len());
    let height = seen[0].0;
    for level in 0..=height {
        let row: Vec<u64> = seen.iter().filter(|s| s.0 == level).map(|s| s.1).collect();
        for (i, at) in row.iter().enumerate() {
            let info = BlockInfo::ref_from_prefix(&m.blocks[at]).unwrap().0;
            let (back, forw) = (u64::from(info.back.get()), u64::from(info.forw.get()));
            assert_eq!(back, if i == 0 { 0 } else { row[i - 1] });
            assert_eq!(forw, row.get(i + 1).copied().unwrap_or(0));
        }
    }
    let count = all.len();
    let set: BTreeSet<(u32, u32)> = all.into_iter().collect();
    assert_eq!(set.len(), count);
    (set, height)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn it_holds_what_a_set_holds(steps in prop::collection::vec((0u32..60, 0u32..20, any::<bool>()), 1..700), bias in any::<bool>()) {
        let (mut m, mut model) = (Memory::new(10_000), BTreeSet::new());
        for (i, (hash, id, add)) in steps.iter().enumerate() {
            let add = *add || (bias && i % 3 != 0);
            if add {
                if model.insert((*hash, *id)) {
                    insert(&mut m, *hash, *id);
                }
            } else {
                prop_assert_eq!(remove(&mut m, *hash, *id), model.remove(&(*hash, *id)));
            }
            if i % 50 == 0 {
                prop_assert_eq!(&check(&mut m).0, &model);
            }
        }
        prop_assert_eq!(&check(&mut m).0, &model);
        for (hash, id) in model {
            prop_assert!(remove(&mut m, hash, id));
        }
        prop_assert_eq!(check(&mut m), (BTreeSet::new(), 0));
        prop_assert_eq!(m.blocks.len(), 1);
    }
}

#[test]
fn it_grows_to_its_last_level_and_back_to_one_leaf() {
    let mut m = Memory::new(100_000);
    let mut heights = BTreeSet::new();
    for i in 0..3000u32 {
        insert(&mut m, i * 7, 1);
        heights.insert(check_height(&m));
    }
    assert_eq!(heights.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(check(&mut m).0.len(), 3000);
    let mut all: Vec<Path> = Vec::new();
    let mut path = find::<Toy, _>(&mut m, 0).unwrap();
    loop {
        all.push(path.clone());
        if !next::<Toy, _>(&mut m, &mut path).unwrap() {
            break;
        }
    }
    assert_eq!(all.iter().map(|p| pairs(&m.blocks[&p.leaf.0]).len()).sum::<usize>(), 3000);
    for i in 0..3000u32 {
        assert!(remove(&mut m, i * 7, 1));
    }
    assert_eq!(check(&mut m), (BTreeSet::new(), 0));
}

fn check_height(m: &Memory) -> u16 {
    let (h, _) = NodeHeader::ref_from_prefix(&m.blocks[&3]).unwrap();
    if h.info.magic.get() == NODE_MAGIC { h.level.get() } else { 0 }
}

/// A tree higher than the format allows is refused, and so is one without space.
#[test]
fn what_has_no_room_is_an_error() {
    let mut m = Memory::new(100_000);
    let mut failed = None;
    for i in 0..20_000u32 {
        let path = find::<Toy, _>(&mut m, i).unwrap();
        let share = |left: &mut [u8], right: &mut [u8]| {
            set_pairs(left, &[(i, 0)]);
            set_pairs(right, &[(i, 1)]);
            Ok(())
        };
        if let Err(e) = split::<Toy, _>(&mut m, &path, share) {
            failed = Some(e);
            break;
        }
    }
    assert!(matches!(failed, Some(Error::NoSpace(_))), "{failed:?}");
    let mut m = Memory::new(4);
    for i in 0..MAX as u32 * 2 {
        insert(&mut m, i, 0);
        if m.blocks.len() == 4 {
            break;
        }
    }
    let path = find::<Toy, _>(&mut m, 0).unwrap();
    let failed = split::<Toy, _>(&mut m, &path, |_, _| Ok(()));
    assert!(matches!(failed, Err(Error::NoSpace(_))), "{failed:?}");
}

/// Pointers of a damaged tree lead anywhere: up, to themselves, to nothing.
#[test]
fn damage_is_an_error_and_no_loop() {
    let grown = || {
        let mut m = Memory::new(100_000);
        (0..120).for_each(|i| insert(&mut m, i, 0));
        m
    };
    let blocks: Vec<u64> = grown().blocks.keys().copied().collect();
    let mut refused = 0;
    for at in &blocks {
        for (offset, value) in [(3, 1u8), (7, 9), (59, 0), (59, 3), (57, 0), (71, 3), (79, 200), (8, 1)] {
            let mut m = grown();
            m.blocks.get_mut(at).unwrap()[offset] = value;
            for hash in (0..120).step_by(17) {
                let found = each_with_hash::<Toy, _, ()>(&mut m, hash, |_, _| Ok(ControlFlow::Continue(())));
                let path = match (found, find::<Toy, _>(&mut m, hash)) {
                    (Ok(_), Ok(path)) => path,
                    _ => {
                        refused += 1;
                        continue;
                    }
                };
                let all = pairs(m.block(path.leaf).unwrap());
                set_pairs(m.block_mut(path.leaf).unwrap(), &all[..all.len() / 3]);
                refused += usize::from(shrink::<Toy, _>(&mut m, &path).is_err());
            }
        }
    }
    assert!(refused > blocks.len(), "{refused}");
}
