//! Runs inside the guest kernel: fills a mounted filesystem, shuts it down in the middle of work, or lists it.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use xfsr_tests::corpus;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [what @ ("fill" | "crash"), name, root, block, directory, inode] => {
            let recipe = corpus::all().iter().find(|r| r.name == name).context("no such recipe")?;
            let (block, directory, inode) = (block.parse()?, directory.parse()?, inode.parse()?);
            let shape = corpus::fill::Shape { block, directory, inode, seed: 9 };
            if what == "crash" {
                return corpus::crash::crash(recipe, Path::new(root), shape);
            }
            let mut filler = corpus::fill::Filler::new(Path::new(root), shape);
            recipe.parts.iter().try_for_each(|part| filler.part(*part))
        }
        ["manifest", root] => {
            let entries = corpus::manifest::walk(Path::new(root))?;
            corpus::manifest::write(&entries, &mut std::io::stdout().lock())
        }
        _ => bail!("fill or crash RECIPE ROOT BLOCK DIRECTORY INODE, or manifest ROOT"),
    }
}
