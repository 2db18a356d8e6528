//! The corpus is what it claims to be: stock xfs_repair finds nothing, and the forms occur.

use xfsr_tests::{corpus, oracle};

#[test]
fn clean_images_are_clean_to_xfs_repair() {
    if oracle::require(oracle::MOUNT).is_none() {
        return;
    }
    for recipe in corpus::selected().filter(|r| r.stock_clean()) {
        let Some(devices) = corpus::obtain(recipe.name) else { continue };
        let verdict = oracle::xfs_repair_n(&devices, &[]).unwrap();
        assert!(verdict.clean(), "{}: {}", recipe.name, verdict.output);
    }
}
