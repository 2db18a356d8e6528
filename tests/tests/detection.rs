//! Damage to single fields: whatever `xfs_repair -n` calls damaged, the library's check calls damaged.
//!
//! Here a seeded sample, and cases that once were missed; the whole matrix is run by `xfsr-damage` (see CONTRIBUTING.md).
//! `XFSR_DAMAGE_CASES` sets how many cases are drawn from each image, `XFSR_DAMAGE_SEED` which.

use xfsr_tests::corpus;
use xfsr_tests::damage::{self, Case, matrix};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn try_cases(image: &str, cases: &[Case]) -> Vec<matrix::Verdict> {
    let verdicts = matrix::run(image, cases, matrix::Ask::All, 2, &|_| ()).unwrap();
    let panics: Vec<String> = verdicts.iter().filter(|v| v.panicked).map(|v| v.case.to_string()).collect();
    assert!(panics.is_empty(), "{image}: the check panicked:\n{panics:#?}");
    verdicts
}

fn missed<'a>(image: &str, verdicts: impl IntoIterator<Item = &'a matrix::Verdict>) -> Vec<String> {
    let missed = verdicts.into_iter().filter(|v| v.stock == Some(true) && !v.ours);
    missed.map(|v| format!("{image}: {}", v.case)).collect()
}

#[test]
fn what_the_stock_tool_finds_is_found() {
    let (mut whole, mut alone) = (Vec::new(), Vec::new());
    for image in ["rmap-1k", "default"] {
        let Some(devices) = corpus::obtain(image) else { continue };
        let places = damage::places(&devices, &corpus::manifest(image)).unwrap();
        let count = usize::try_from(number("XFSR_DAMAGE_CASES", 60)).unwrap();
        let seed = number("XFSR_DAMAGE_SEED", 11);
        let draw = |all: Vec<Case>| damage::sample(&all, count.min(all.len()), seed);
        let mut cases = draw(damage::cases_of(&devices, &places).unwrap());
        cases.extend(draw(damage::stale_cases_of(&devices, &places).unwrap()));
        let verdicts = try_cases(image, &cases);
        assert!(verdicts.len() * 3 > cases.len(), "{} of {} cases change something", verdicts.len(), cases.len());
        alone.extend(missed(image, &verdicts));
        whole.extend(verdicts);
    }
    println!("{}", matrix::table(&matrix::rows(&whole)));
    assert!(alone.is_empty(), "found by xfs_repair -n alone, of {}:\n{alone:#?}", whole.len());
}
