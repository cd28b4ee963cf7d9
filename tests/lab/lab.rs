//! The lab: foip on three hosts in network namespaces, judged by its packets, its traces and the provider's log.
//!
//! It is the demo, the end-to-end test and the benchmark. `lab help` lists its commands.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a test program stops at the first surprise, sleeps, and lets errors be errors"
)]

mod monitor;
mod pinger;
mod plan;
mod process;
mod run;
mod scenario;
mod shell;
mod signals;
mod timeline;
mod trouble;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match command(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn command(args: &[String]) -> trouble::Outcome<()> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["ping", target, log] => pinger::main(target.parse().expect("an address"), log.as_ref()),
        ["world"] => world_check(),
        _ => Err(trouble!("unknown command")),
    }
}

fn world_check() -> trouble::Outcome<()> {
    use std::time::{Duration, Instant};
    let start = Instant::now();
    let mut world = world::World::build()?;
    println!("built in {:?}", start.elapsed());
    let switch = world.write_switch()?.display().to_string();
    let monitors: Vec<_> =
        (0..3).map(|h| monitor::Monitor::start(&world.host(h)).unwrap()).collect();
    for h in 0..2 {
        shell::ip(&world.host(h), &["addr", "add", "203.0.113.63/32", "dev", "eth0"])?;
        shell::ip(
            &world.host(h),
            &["addr", "add", "2001:db8:a:20::1/128", "dev", "eth0", "nodad"],
        )?;
    }
    let sw = |ip: &str, s: &str| shell::run(&switch, &[ip, s]);
    sw(plan::FAILOVER_V4, "v2202600000000003")?;
    sw(plan::FAILOVER_V6, "v2202600000000003")?;
    let p4 = pinger::Pinger::start(
        &world.namespace("client"),
        world.folder(),
        "203.0.113.63".parse().unwrap(),
    )?;
    let p6 = pinger::Pinger::start(
        &world.namespace("client"),
        world.folder(),
        "2001:db8:a:20::1".parse().unwrap(),
    )?;
    let nap = |ms| std::thread::sleep(Duration::from_millis(ms));
    nap(2000);
    for i in 0..6 {
        let s = if i % 2 == 0 { "v2202600000000004" } else { "v2202600000000003" };
        sw(plan::FAILOVER_V4, s)?;
        sw(plan::FAILOVER_V6, s)?;
        nap(300);
    }
    nap(700);
    let now = foip::clock::now().0;
    println!(
        "switching: {:?} {:?} late {}",
        p4.gaps(0, now),
        p6.gaps(0, now),
        p4.worst_delay(0, now)
    );
    println!("routes {:?}", world.routes()?);
    world.power_off(0, &[monitors[0].pid()])?;
    nap(500);
    sw(plan::FAILOVER_V4, "v2202600000000004")?;
    sw(plan::FAILOVER_V6, "v2202600000000004")?;
    nap(1000);
    world.power_on(0)?;
    world.cut(1, world::Cut::Network)?;
    nap(200);
    world.uncut(1)?;
    nap(1000);
    let now = foip::clock::now().0;
    println!("power+cut: {:?} {:?}", p4.gaps(0, now), p6.gaps(0, now));
    println!("changes a: {:?}", monitors[0].changes("203.0.113.63"));
    println!("{:?}", std::fs::read_to_string(world.switch_log()));
    if std::env::var("LAB_DIE").is_ok() {
        nap(100000);
    }
    Ok(())
}
