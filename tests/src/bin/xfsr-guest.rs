//! Runs inside the guest kernel: fills a mounted filesystem, or lists it.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use xfsr_tests::corpus;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["fill", name, root, block, directory, inode] => {
            let recipe = corpus::all().iter().find(|r| r.name == name).context("no such recipe")?;
            let (block, directory, inode) = (block.parse()?, directory.parse()?, inode.parse()?);
            let mut filler =
                corpus::fill::Filler::new(Path::new(root), corpus::fill::Shape { block, directory, inode, seed: 9 });
            recipe.parts.iter().try_for_each(|part| filler.part(*part))
        }
        ["manifest", root] => {
            let entries = corpus::manifest::walk(Path::new(root))?;
            corpus::manifest::write(&entries, &mut std::io::stdout().lock())
        }
        _ => bail!("fill RECIPE ROOT BLOCK DIRECTORY INODE, or manifest ROOT"),
    }
}
