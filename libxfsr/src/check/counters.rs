//! The superblock's counters against the AGs'.

use super::Findings;
use super::ag::AgState;
use crate::error::{Corruption, Rule, Severity};
use crate::space::Counters;
use crate::units::AgNumber;
use crate::volume::Volume;

pub(super) fn check(volume: &Volume, ags: &[AgState], found: &Findings<'_>) {
    let mut real = Counters::default();
    for a in ags {
        let (Some(agf), Some(agi)) = (&a.agf, &a.agi) else {
            return found.skip("fscounters", format_args!("the headers of AG {} cannot be used", a.ag));
        };
        real += Counters::of(agf, agi);
    }
    let sb = &volume.superblock;
    if volume.superblock_from != AgNumber(0) {
        return found.skip("fscounters", "the primary superblock cannot be used");
    }
    for (field, stored, real) in [
        ("icount", sb.icount.get(), real.inodes),
        ("ifree", sb.ifree.get(), real.free_inodes),
        ("fdblocks", sb.fdblocks.get(), real.free_blocks),
    ] {
        if stored != real {
            let c = Corruption::new("fscounters", field, Rule::Count).in_ag(AgNumber(0), None);
            found.add(c.severity(Severity::CrossReference).found(stored).expected(real));
        }
    }
}
