//! A tour: make a filesystem in a temporary file, look at it, check it, damage one number, and see the damage found.

use libxfsr::check;
use libxfsr::control::Control;
use libxfsr::mkfs::{self, write};
use libxfsr::target::{Access, FileTarget, Target};
use libxfsr::volume::{Devices, Volume};

fn main() -> libxfsr::Result<()> {
    let path = std::env::temp_dir().join(format!("xfsr-tour-{}.img", std::process::id()));
    let outcome = tour(&path);
    let _ = std::fs::remove_file(&path);
    outcome
}

fn tour(path: &std::path::Path) -> libxfsr::Result<()> {
    const SIZE: u64 = 1 << 30;
    println!("1. A filesystem of 1 GiB in {}", path.display());
    let started = std::time::Instant::now();
    let plan = mkfs::plan(&mkfs::Options::default(), &mkfs::Devices::file(SIZE))?;
    let target = FileTarget::create(path, SIZE)?;
    write::write(
        &plan,
        &write::Targets { data: &target, log: None, rt: None },
        &write::WriteOptions::default(),
        &Control::none(),
    )?;
    drop(target);
    println!(
        "{}   made in {:.1} ms\n",
        plan.report("tour", None, None).render(),
        started.elapsed().as_secs_f64() * 1e3
    );

    println!("2. Its check");
    let volume = Volume::open(&Devices::data(path))?;
    print!("{}", check::check(&volume, &Control::none())?);
    let g = volume.geometry.clone();
    drop(volume);

    println!("\n3. One bit of the second AG's free space header is turned over");
    let target = FileTarget::open(path, Access::Write)?;
    let at = g.header_daddr(libxfsr::units::AgNumber(1), 1).bytes();
    let mut sector = vec![0; g.sector_size as usize];
    target.read_at(&mut sector, at)?;
    // Byte 55 is the lowest of `freeblks`.
    sector[55] ^= 1;
    (libxfsr::format::ag::AGF.seal)(&mut sector, libxfsr::units::Lsn(0));
    target.write_at(&sector, at)?;
    drop(target);

    println!("\n4. The check again");
    let volume = Volume::open(&Devices::data(path))?;
    print!("{}", check::check(&volume, &Control::none())?);
    Ok(())
}
