//! The superblock's counters against the AGs'.

use super::Findings;
use super::ag::AgState;
use crate::error::{Corruption, Rule, Severity};
use crate::units::AgNumber;
use crate::volume::Volume;

pub(super) fn check(volume: &Volume, ags: &[AgState], found: &Findings<'_>) {
    let (mut count, mut free, mut blocks) = (0u64, 0u64, 0u64);
    for a in ags {
        let (Some(agf), Some(agi)) = (&a.agf, &a.agi) else {
            return found.skip("fscounters", format_args!("the headers of AG {} cannot be used", a.ag));
        };
        count += u64::from(agi.count.get());
        free += u64::from(agi.freecount.get());
        blocks += [agf.freeblks, agf.flcount, agf.btreeblks].iter().map(|v| u64::from(v.get())).sum::<u64>();
    }
    let sb = &volume.superblock;
    if volume.superblock_from != AgNumber(0) {
        return found.skip("fscounters", "the primary superblock cannot be used");
    }
    for (field, stored, real) in
        [("icount", sb.icount.get(), count), ("ifree", sb.ifree.get(), free), ("fdblocks", sb.fdblocks.get(), blocks)]
    {
        if stored != real {
            let c = Corruption::new("fscounters", field, Rule::Count).in_ag(AgNumber(0), None);
            found.add(c.severity(Severity::CrossReference).found(stored).expected(real));
        }
    }
}
