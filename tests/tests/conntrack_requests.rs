//! Requests to conntrack: each has its outcome, and a hundred thousand take no time.

use std::{net::Ipv4Addr, process::ExitCode, time::Instant};

use anyhow::{Result, ensure};
use dataplane_common::headers::IpProtocol;
use dataplane_common::state::State;
use nix::errno::Errno;
use portway::{
    conntrack::{Entry, Outcome, sysctls},
    firewall::Family,
};
use portway_tests::{
    conntrack::{all, on},
    container::GATEWAY,
    harness::{self, Test},
    lab::HOST,
    netns::Netns,
};

/// How many entries a busy host may have to hand over at once.
const MANY: u32 = 100_000;

fn main() -> ExitCode {
    harness::run([
        Test::of_lab("every_entry_has_its_outcome", outcomes),
        Test::of_lab("many_entries_take_no_time", many),
        Test::of_lab("settings_are_the_namespaces_own", settings),
    ])
}

fn outcomes() -> Result<()> {
    let netns = Netns::new()?;
    on(&netns, |conntrack| {
        let entry = numbered(0);
        all(Outcome::Done, |told| conntrack.insert([entry], told))?;
        all(Outcome::Unchanged, |told| conntrack.insert([entry], told))?;
        ensure!(conntrack.find(entry.protocol, entry.reply)?.is_some());
        let mut elsewhere = entry;
        elsewhere.reply.source.set_port(81);
        let mut other = entry;
        other.original.destination.set_port(81);
        all(Outcome::Elsewhere, |told| {
            conntrack.insert([elsewhere], told)
        })?;
        all(Outcome::Refused(Errno::EEXIST), |told| {
            conntrack.insert([other], told)
        })?;
        // One refusal says nothing of its neighbours.
        let mut told = Vec::new();
        conntrack.insert([numbered(1), elsewhere, numbered(2)], |_, outcome| {
            told.push(outcome);
        })?;
        ensure!(
            told == [Outcome::Done, Outcome::Elsewhere, Outcome::Done],
            "{told:?}"
        );
        all(Outcome::Done, |told| conntrack.delete([entry], told))?;
        all(Outcome::Unchanged, |told| conntrack.delete([entry], told))?;
        ensure!(conntrack.find(entry.protocol, entry.original)?.is_none());
        Ok(())
    })
}

fn settings() -> Result<()> {
    let netns = Netns::new()?;
    let read = || netns.run(|| Ok((sysctls::timeouts(), sysctls::tcp_be_liberal()?)));
    let (defaults, liberal) = read()?;
    ensure!(liberal.is_some(), "this kernel has no conntrack");
    netns.sysctl("netfilter/nf_conntrack_udp_timeout_stream", "77")?;
    for liberal in [true, false] {
        ensure!(netns.run(|| sysctls::set_tcp_be_liberal(liberal))?);
        let timeouts = defaults.with(State::Stream, 77);
        let now = read()?;
        ensure!(now == (timeouts, Some(liberal)), "{now:?}");
    }
    Ok(())
}

fn many() -> Result<()> {
    let netns = Netns::new()?;
    on(&netns, |conntrack| {
        let entries = || (0..MANY).map(numbered);
        timed(MANY, "created", || {
            all(Outcome::Done, |told| conntrack.insert(entries(), told))
        })?;
        let again = MANY / 10;
        timed(again, "found to be there", || {
            let entries = (0..again).map(numbered);
            all(Outcome::Unchanged, |told| conntrack.insert(entries, told))
        })?;
        let mut listed = 0;
        timed(MANY, "listed", || {
            conntrack.dump(Family::V4, |_| listed += 1)
        })?;
        ensure!(listed == MANY, "{listed} of {MANY} listed");
        timed(MANY, "deleted", || {
            all(Outcome::Done, |told| conntrack.delete(entries(), told))
        })
    })
}

/// The conversation of client number `number`.
fn numbered(number: u32) -> Entry {
    let client = (
        Ipv4Addr::from_bits(0x0a00_0000 + (number >> 10)),
        1024 + (number & 1023) as u16,
    );
    Entry::established(
        IpProtocol::TCP,
        client.into(),
        (HOST, 9000).into(),
        (GATEWAY, 80).into(),
        client.into(),
        600,
    )
}

fn timed(count: u32, what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    work()?;
    println!("{count} entries {what} in {:?}", start.elapsed());
    Ok(())
}
