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
use crate::units::halves;
use rayon::prelude::*;
use std::hash::{BuildHasher, Hasher, RandomState};

const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(state: u64, word: u64) -> u64 {
    let product = u128::from(state ^ word) * u128::from(FACTOR);
    #[expect(clippy::cast_possible_truncation, reason = "both halves are used")]
    let folded = (product as u64) ^ (product >> 64) as u64;
    folded
}

/// The eight bytes from `at` on, which are there.
fn word(name: &[u8], at: usize) -> u64 {
    let bytes = name.get(at..).and_then(|n| n.first_chunk::<8>()).copied().unwrap_or_default();
    zerocopy::native_endian::U64::from_bytes(bytes).get()
}

/// A quick hash of a name as this filesystem compares names. Who makes the names could make them collide: that costs time, not
/// truth.
fn quick(ci: bool, name: &[u8]) -> u64 {
    if ci {
        let folded: Vec<u8> = name.iter().map(|b| fold_case(*b)).collect();
        return quick(false, &folded);
    }
    let mut state = mix(FACTOR, name.len() as u64);
    if name.len() < 8 {
        let short = name.iter().fold(0, |w, b| w << 8 | u64::from(*b));
        return mix(state, short);
    }
    // The last word may reach back into the one before.
    let last = name.len() - 8;
    for at in (0..last).step_by(8) {
        state = mix(state, word(name, at));
    }
    mix(state, word(name, last))
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

/// Places of the table that are tried for a value.
const MAX_PROBES: usize = 64;
/// Above so many values the table falls out of the processor's caches, and sorting with all threads is quicker.
const MAX_TABLE: usize = 1 << 15;

/// Values that may occur more than once, sorted: all that do, a pair in 2^32 or so that differs, and where someone chose names
/// that crowd the table, those for which there was no place.
fn repeated(mut all: Vec<u64>) -> Vec<u64> {
    let mut again = Vec::new();
    if all.len() < 2 {
        return again;
    }
    if all.len() > MAX_TABLE {
        all.par_sort_unstable();
        again.extend(all.windows(2).filter_map(|w| if let [a, b] = w { (a == b).then_some(*a) } else { None }));
        again.dedup();
        return again;
    }
    // A hash table of the upper halves, at the places that the lower halves say; half of it stays empty.
    let mask = (all.len() * 2).next_power_of_two() - 1;
    let mut table = vec![0u32; mask + 1];
    for value in &all {
        let (high, low) = halves(*value);
        let tag = high | 1;
        let first = low as usize & mask;
        let place =
            (0..MAX_PROBES).map(|n| (first + n) & mask).find(|at| table.get(*at).is_some_and(|t| [0, tag].contains(t)));
        match place.and_then(|at| table.get_mut(at)) {
            Some(t) if *t == 0 => *t = tag,
            _ => again.push(*value),
        }
    }
    again.sort_unstable();
    again.dedup();
    again
}

impl Dir<'_> {
    /// Takes an entry's name.
    pub(super) fn name(&mut self, name: &[u8]) {
        self.names.push(quick(self.pass.volume.geometry.features.ascii_ci(), name));
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
        let ci = g.features.ascii_ci();
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
        for (_, address) in self.pass.found.until_stopped(index.iter()) {
            with_name(*address, &mut |name| {
                if again.binary_search(&quick(ci, name)).is_ok() {
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
    use super::{FACTOR, MAX_TABLE, quick, repeated};

    #[test]
    fn names_that_differ_hash_differently() {
        for length in [1, 3, 7, 8, 9, 15, 16, 40] {
            let name = |i: u32| format!("{i:0length$}");
            let count = 10u32.pow(length.min(5) as u32);
            let all: Vec<u64> = (0..count).map(|i| quick(false, name(i).as_bytes())).collect();
            assert!(repeated(all).is_empty(), "{length}");
        }
        assert_ne!(quick(false, b"a"), quick(false, b"a\0"));
        assert_ne!(quick(false, b"\0a"), quick(false, b"a"));
    }

    #[test]
    fn case_counts_only_where_it_does() {
        assert_eq!(quick(true, b"A longer Name"), quick(true, b"a LONGER nAME"));
        assert_ne!(quick(false, b"A"), quick(false, b"a"));
    }

    #[test]
    fn repeated_values_are_found() {
        assert_eq!(repeated(vec![3, 1 << 40, 3, 2 << 40, 3, 1 << 40]), [3, 1 << 40]);
        assert!(repeated(vec![7]).is_empty());
        // Too many for the table.
        let many: Vec<u64> = (0..MAX_TABLE as u64 + 9).chain([5, 77, 5]).map(|i| i.wrapping_mul(FACTOR)).collect();
        let mut two = vec![5u64.wrapping_mul(FACTOR), 77u64.wrapping_mul(FACTOR)];
        two.sort_unstable();
        assert_eq!(repeated(many), two);
        // All at one place of the table: found, and others too.
        let crowd: Vec<u64> = (1..2000u64).chain([1999]).map(|i| i << 33).collect();
        assert!(repeated(crowd).contains(&(1999 << 33)));
    }
}
