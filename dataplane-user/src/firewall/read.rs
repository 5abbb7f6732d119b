//! Where the rulesets come from: the tools that print them, run in the caller's network namespace.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Read as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::thread::CapabilitySet;

use super::{Family, Rulesets, Source, Verdict, combine, iptables, judge, nft, translates};
use crate::privileges;

/// A tool that takes longer is waiting for a lock or worse.
const LIMIT: Duration = Duration::from_secs(5);

/// What the tools may do: nft and iptables-nft talk netlink, the legacy iptables a raw socket.
const TOOLS_NEED: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW);

/// Where the tools are when PATH does not say: an ordinary user's has no sbin.
const SBIN: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// Reads and judges the rulesets that packets of either IP version meet in the calling thread's network
/// namespace. Takes some 10 ms, more with thousands of rules, and at most some seconds; blocks.
pub fn inspect_all() -> Verdict {
    inspect_text().0
}

/// The same, and a number that is another one when the rules' text is another one.
pub fn inspect_text() -> (Verdict, u64) {
    let nft = list_nft();
    let v4 = read(Family::V4, nft.clone());
    let v6 = read(Family::V6, nft);
    let verdict = combine(judge(Family::V4, &v4), judge(Family::V6, &v6));
    (verdict, number(&[v4, v6]))
}

/// A number for the rules' text, comments and the counters of chains left out.
fn number(rulesets: &[Rulesets]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for source in rulesets
        .iter()
        .flat_map(|it| [&it.nft, &it.xtables_nft, &it.xtables_legacy])
    {
        if let Source::Text(text) = source {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            for line in lines {
                let is_chain = line.starts_with(':');
                let end = line.find('[').filter(|_| is_chain).unwrap_or(line.len());
                line[..end].hash(&mut hasher);
            }
        }
        // A text that has moved from one to the next is another one, too.
        matches!(source, Source::Text(_)).hash(&mut hasher);
    }
    hasher.finish()
}

/// Whether Docker translates packets of `family` by rules in the calling thread's network namespace, if that
/// can be told. Blocks as [`inspect_all`] does.
pub fn look_for_translation(family: Family) -> Option<bool> {
    translates(family, &read(family, list_nft()))
}

/// Whether there is any NAT in force for `family` in the calling thread's network namespace, if that can be told.
/// Only then is a conversation translated that conntrack has noted a translation of: whatever rule there is makes
/// the kernel look (`nf_nat_register_fn` in net/netfilter/nf_nat_core.c). Blocks as [`inspect_all`] does.
pub fn look_for_nat(family: Family) -> Option<bool> {
    if legacy_tables(family).is_some_and(|names| names.lines().any(|name| name == "nat")) {
        return Some(true);
    }
    match list_nft() {
        Source::Text(listed) => Some(nft::has_nat(family, &listed)),
        Source::Absent | Source::Unreadable(_) => None,
    }
}

/// nftables' rules, which tables of all families are among.
fn list_nft() -> Source {
    // --stateless leaves out counters, and so keeps the text short and the same while nothing changes.
    match run(&["nft"], &["--stateless", "list", "ruleset"]) {
        Ok(text) => Source::Text(text),
        Err(Failure::Missing(_)) => {
            let why = "the nft command is missing; install nftables".to_owned();
            Source::Unreadable(why)
        }
        Err(Failure::Failed(why)) => Source::Unreadable(why),
    }
}

/// The rulesets that packets of `family` meet, `nft` among them.
fn read(family: Family, nft: Source) -> Rulesets {
    let xtables_nft = match &nft {
        Source::Text(listed) => xtables_nft(family, listed),
        _ => Source::Absent,
    };
    Rulesets {
        nft,
        xtables_nft,
        xtables_legacy: xtables_legacy(family),
    }
}

/// What iptables-nft keeps among the tables that nft has `listed`.
fn xtables_nft(family: Family, listed: &str) -> Source {
    let expected = nft::xtables(family, listed);
    if expected.is_empty() {
        return Source::Absent;
    }
    let tools = match family {
        Family::V4 => ["iptables-nft-save", "iptables-save"],
        Family::V6 => ["ip6tables-nft-save", "ip6tables-save"],
    };
    match run_save(&tools, true) {
        Ok(text) => {
            let shown: Vec<&str> = iptables::tables(&text).collect();
            match expected.iter().find(|table| !shown.contains(table)) {
                // The table is not iptables' at all.
                Some(table) => Source::Unreadable(format!(
                    "{} does not show nftables table {} {table}",
                    tools[0],
                    family.nft()
                )),
                None => Source::Text(text),
            }
        }
        Err(failure) => Source::Unreadable(failure.into_text()),
    }
}

/// The kernel tells which legacy tables there are, so nothing is run, and no table made by running
/// it, if there are none.
fn xtables_legacy(family: Family) -> Source {
    let names = legacy_tables(family).unwrap_or_default();
    let Some(some) = names.split_whitespace().next() else {
        return Source::Absent;
    };
    let tools = match family {
        Family::V4 => ["iptables-legacy-save", "iptables-save"],
        Family::V6 => ["ip6tables-legacy-save", "ip6tables-save"],
    };
    match run_save(&tools, false) {
        Ok(text) if iptables::tables(&text).any(|table| table == some) => Source::Text(text),
        Ok(_) => Source::Unreadable(format!("{} does not show table {some}", tools[0])),
        Err(failure) => Source::Unreadable(failure.into_text()),
    }
}

/// The names of legacy iptables' tables, one a line; none where the kernel has no legacy iptables, or has not
/// loaded it.
fn legacy_tables(family: Family) -> Option<String> {
    let names = match family {
        Family::V4 => "ip_tables_names",
        Family::V6 => "ip6_tables_names",
    };
    // thread-self, because the namespace is the thread's.
    fs::read_to_string(format!("/proc/thread-self/net/{names}")).ok()
}

/// The output of the first of two tools, the second of which may be of either backend.
fn run_save(tools: &[&str; 2], nft_backend: bool) -> Result<String, Failure> {
    match run(&tools[..1], &[]) {
        Err(Failure::Missing(tool)) => {
            let text = run(&tools[1..], &[])?;
            // iptables 1.8 and later says so in its first line, 1.6 only knows the legacy backend.
            let is_nft = text
                .lines()
                .next()
                .is_some_and(|line| line.contains("(nf_tables)"));
            if is_nft == nft_backend {
                Ok(text)
            } else {
                Err(Failure::Missing(tool))
            }
        }
        other => other,
    }
}

/// Why a tool gave no text.
enum Failure {
    Missing(String),
    Failed(String),
}

impl Failure {
    fn into_text(self) -> String {
        match self {
            Self::Missing(tool) => format!("the {tool} command is missing; install iptables"),
            Self::Failed(why) => why,
        }
    }
}

/// The output of the first of `tools` that is there.
fn run(tools: &[&str], arguments: &[&str]) -> Result<String, Failure> {
    let Some((tool, path)) = tools.iter().find_map(|tool| Some((tool, find(tool)?))) else {
        return Err(Failure::Missing(tools[0].to_owned()));
    };
    let failed = |why: String| Failure::Failed(format!("{tool} {why}"));
    let mut command = Command::new(path);
    command
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = privileges::spawn(&mut command, TOOLS_NEED)
        .map_err(|error| failed(format!("cannot be run: {error}")))?;
    let (sender, output) = mpsc::channel();
    if let Some(mut stdout) = child.stdout.take() {
        thread::spawn(move || {
            let mut text = String::new();
            let read = stdout.read_to_string(&mut text).map(|_| text);
            let _ = sender.send(read);
        });
    }
    let Ok(read) = output.recv_timeout(LIMIT) else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(failed("takes too long".to_owned()));
    };
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        let hint = if nix::unistd::geteuid().is_root() {
            ""
        } else {
            "; this needs root"
        };
        return Err(failed(format!("failed ({status}){hint}")));
    }
    read.map_err(|error| failed(error.to_string()))
}

fn find(tool: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(SBIN.map(PathBuf::from));
    folders
        .map(|folder| folder.join(tool))
        .find(|file| file.is_file())
}
