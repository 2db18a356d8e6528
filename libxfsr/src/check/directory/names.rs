//! Two entries of one name in a directory.
//!
//! Each entry leaves a 64-bit hash of its name. Only where two are equal are names looked at again and compared as they are.

use super::Dir;
use super::blocks::{Indexed, Map};
use crate::error::Rule;
use crate::format::BlockType;
use crate::format::da::fold_case;
use crate::format::dir::{ShortDir, entry_at, same_name, split_address};
use crate::geometry::Geometry;
use crate::text::escape;
use rayon::prelude::*;
use std::hash::{BuildHasher, Hasher, RandomState};

const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(state: u64, word: u64) -> u64 {
    let product = u128::from(state ^ word) * u128::from(FACTOR);
    (product as u64) ^ (product >> 64) as u64
}

/// A quick hash of a name as this filesystem compares names. Who makes the names could make them collide: that costs time, not
/// truth.
fn quick(geometry: &Geometry, name: &[u8]) -> u64 {
    let mut state = mix(FACTOR, name.len() as u64);
    let ci = geometry.features.ascii_ci();
    for piece in name.chunks(8) {
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(piece) {
            *to = if ci { fold_case(*from) } else { *from };
        }
        state = mix(state, zerocopy::native_endian::U64::from_bytes(word).get());
    }
    state
}

/// A hash that nobody can foresee.
fn careful(key: &RandomState, geometry: &Geometry, name: &[u8]) -> u64 {
    let mut hasher = key.build_hasher();
    if geometry.features.ascii_ci() {
        let folded: Vec<u8> = name.iter().map(|b| fold_case(*b)).collect();
        hasher.write(&folded);
    } else {
        hasher.write(name);
    }
    hasher.finish()
}

/// Values that occur more than once.
fn repeated(mut all: Vec<u64>) -> Vec<u64> {
    all.par_sort_unstable();
    let mut again: Vec<u64> =
        all.windows(2).filter_map(|w| if let [a, b] = w { (a == b).then_some(*a) } else { None }).collect();
    again.dedup();
    again
}

impl Dir<'_> {
    /// Takes an entry's name.
    pub(super) fn name(&mut self, name: &[u8]) {
        self.names.push(quick(&self.pass.volume.geometry, name));
    }

    fn twice(&self, name: &[u8], block: Option<u64>) {
        let c = self.bad("name", Rule::Duplicate, block).found(format_args!("two entries {}", escape(name)));
        self.tell(c.expected("one entry of a name"));
    }

    /// Looks for equal names in the short form.
    pub(super) fn duplicates_in_short(&mut self, short: &ShortDir<'_>) {
        let names = std::mem::take(&mut self.names);
        if repeated(names).is_empty() {
            return;
        }
        let g = &self.pass.volume.geometry;
        let all: Vec<&[u8]> = short.entries().map_while(Result::ok).map(|e| e.name).collect();
        // Not many: all of them lie in one inode.
        for (i, name) in all.iter().enumerate() {
            if all.iter().take(i).any(|other| same_name(g, other, name)) {
                self.twice(name, None);
            }
        }
    }

    /// Looks for equal names in blocks; `index` has the address of every entry.
    pub(super) fn duplicates(&mut self, map: &Map, kind: &'static BlockType, index: &[Indexed]) {
        let again = repeated(std::mem::take(&mut self.names));
        if again.is_empty() {
            return;
        }
        let g = &self.pass.volume.geometry;
        let key = RandomState::new();
        let with_name = |address: u32, use_name: &mut dyn FnMut(&[u8])| {
            let (at, offset) = split_address(g, address);
            if let Ok(block) = self.load(map, at.0, kind)
                && let Ok(e) = entry_at(&block, offset, g)
            {
                use_name(e.name);
            }
        };
        let mut suspects: Vec<(u64, u32)> = Vec::new();
        for (_, address) in index {
            with_name(*address, &mut |name| {
                if again.binary_search(&quick(g, name)).is_ok() {
                    suspects.push((careful(&key, g, name), *address));
                }
            });
        }
        suspects.sort_unstable();
        for pair in suspects.windows(2) {
            let [(a, first), (b, second)] = pair else { continue };
            let mut name = Vec::new();
            if a == b {
                with_name(*first, &mut |n| name = n.to_vec());
                with_name(*second, &mut |n| {
                    if same_name(g, &name, n) {
                        self.twice(n, Some(split_address(g, *second).0.0));
                    }
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{quick, repeated};
    use crate::geometry::test_geometry;

    #[test]
    fn names_that_differ_hash_differently() {
        let g = test_geometry();
        let all: Vec<u64> = (0..20_000).map(|i| quick(&g, format!("name-{i:09}").as_bytes())).collect();
        assert!(repeated(all).is_empty());
        assert_ne!(quick(&g, b"a"), quick(&g, b"a\0"));
        assert_eq!(repeated(vec![3, 1, 3, 2, 3, 1]), [1, 3]);
    }
}
