//! Rules as `nft list ruleset` prints them.

use std::collections::HashSet;

use super::{Family, iptables};

/// The tables that iptables-nft keeps its rules in. Their rules are judged as iptables prints them,
/// because nft cannot say what all of them mean; only their base chains are looked at here.
pub(super) const XTABLES: [&str; 5] = ["raw", "mangle", "nat", "filter", "security"];

/// The hooks of the forward path. Ingress and egress rules come after TC, so translated packets would
/// not meet them.
const FORWARD_PATH: [&str; 5] = ["ingress", "prerouting", "forward", "postrouting", "egress"];

/// Docker 29's own table, with `--firewall-backend=nftables`.
const DOCKERS_TABLE: &str = "docker-bridges";

/// The base chains of Docker's table.
const DOCKERS_BASE_CHAINS: [&str; 5] = [
    "filter-FORWARD",
    "nat-OUTPUT",
    "nat-POSTROUTING",
    "nat-PREROUTING",
    "raw-PREROUTING",
];

/// The rules of Docker's table that deny or change packets: what they do, and the comment that Docker
/// gives them (`libnetwork/drivers/bridge/internal/nftabler` in moby).
const DOCKERS: [(&str, &str); 12] = [
    ("dnat", "DNAT"),
    ("drop", "DROP DIRECT ACCESS"),
    ("drop", "DROP REMOTE LOOPBACK"),
    ("drop", "ICC"),
    ("drop", "INTERNAL NETWORK EGRESS"),
    ("drop", "INTERNAL NETWORK INGRESS"),
    ("drop", "UNPUBLISHED PORT DROP"),
    ("masquerade", "MASQ TO OWN PORT"),
    ("masquerade", "MASQUERADE"),
    ("masquerade", "MASQUERADE FROM HOST"),
    ("snat", "SNAT"),
    ("snat", "SNAT FROM HOST"),
];

/// Whether Docker's table is in `listed`, as far as packets of `family` meet it.
///
/// # Errors
/// Why somebody else's rules count: one clause that names the first.
pub fn check(family: Family, listed: &str) -> Result<bool, String> {
    let mut docker = false;
    for table in parse(listed) {
        // A packet that is routed to a bridge meets the bridge's and the device's own hooks too.
        let concerns = [family.nft(), "inet", "bridge", "netdev"].contains(&table.family);
        if !concerns {
            continue;
        }
        if table.name == DOCKERS_TABLE && table.family == family.nft() {
            check_dockers(&table)?;
            docker = true;
        } else if is_xtables(&table) {
            check_xtables(&table)?;
        } else {
            check_other(&table)?;
        }
    }
    Ok(docker)
}

/// Whether Docker, or podman's netavark, translates packets of `family` by rules that are in `listed`.
pub(super) fn translates(family: Family, listed: &str) -> bool {
    parse(listed).iter().any(|table| {
        let own = table.name == DOCKERS_TABLE || table.name == "netavark";
        let nat = table.name == "nat"
            && table
                .chains
                .iter()
                .any(|chain| iptables::TRANSLATING.contains(&chain.name));
        table.family == family.nft() && (own || nat) || table.family == "inet" && own
    })
}

/// Whether any table in `listed` has NAT for `family`, be it without a rule.
pub(super) fn has_nat(family: Family, listed: &str) -> bool {
    parse(listed).iter().any(|table| {
        [family.nft(), "inet"].contains(&table.family)
            && table.chains.iter().any(|chain| chain.is_nat)
    })
}

/// The names of iptables-nft's tables of `family` that have a base chain.
pub(super) fn xtables(family: Family, listed: &str) -> HashSet<&str> {
    let tables = parse(listed).into_iter();
    let with_hooks = tables.filter(|table| table.chains.iter().any(|chain| chain.hook.is_some()));
    with_hooks
        .filter(|table| is_xtables(table) && table.family == family.nft())
        .map(|table| table.name)
        .collect()
}

fn is_xtables(table: &Table<'_>) -> bool {
    XTABLES.contains(&table.name) && ["ip", "ip6"].contains(&table.family)
}

/// iptables does not show base chains that are not its own.
fn check_xtables(table: &Table<'_>) -> Result<(), String> {
    let iptables_own = |chain: &Chain<'_>| {
        chain
            .hook
            .is_none_or(|hook| chain.name == hook.to_uppercase())
    };
    match table.chains.iter().find(|chain| !iptables_own(chain)) {
        Some(chain) => Err(format!(
            "nftables table {} {} has a chain {} that is not Docker's",
            table.family, table.name, chain.name
        )),
        None => Ok(()),
    }
}

/// Nobody's rules on the forward path but Docker's are harmless; a base chain without any that lets
/// everything through is (Debian's /etc/nftables.conf has one).
fn check_other(table: &Table<'_>) -> Result<(), String> {
    let Table {
        family,
        name,
        chains,
    } = table;
    for chain in chains {
        let Some(hook) = chain.hook.filter(|hook| FORWARD_PATH.contains(hook)) else {
            continue;
        };
        if chain.drops {
            return Err(format!(
                "nftables table {family} {name} drops by default in its {hook} hook"
            ));
        }
        if let Some(rule) = chain.rules.first() {
            return Err(format!(
                "nftables table {family} {name} has {hook} rules: {rule}"
            ));
        }
    }
    Ok(())
}

fn check_dockers(table: &Table<'_>) -> Result<(), String> {
    for chain in &table.chains {
        let own = chain.hook.is_none() || DOCKERS_BASE_CHAINS.contains(&chain.name);
        if !own || chain.drops {
            return Err(format!(
                "Docker's nftables table has a chain {} not its own",
                chain.name
            ));
        }
        if let Some(rule) = chain
            .rules
            .iter()
            .find(|rule| !is_dockers(chain.name, rule))
        {
            return Err(format!(
                "Docker's nftables table has rules that are not its own: {} {rule}",
                chain.name
            ));
        }
    }
    Ok(())
}

/// Rules that can deny or change a packet are known by what they do and their comment, the others by
/// what they do.
fn is_dockers(chain: &str, rule: &str) -> bool {
    let (rule, comment) = match rule.split_once(" comment \"") {
        Some((rule, comment)) => (rule, comment.trim_end_matches('"')),
        None => (rule, ""),
    };
    let has = |verdict: &str| rule.split_whitespace().any(|word| word == verdict);
    if has("vmap") {
        return rule.contains("vmap @filter-forward-") || rule.contains("vmap @nat-postrouting-");
    }
    if has("jump") {
        return rule.ends_with("jump nat-prerouting-and-output");
    }
    if DOCKERS
        .iter()
        .any(|(verdict, name)| *name == comment && has(verdict))
    {
        return true;
    }
    // The rules for WSL2's mirrored networking.
    let wsl2 = rule.starts_with("iifname \"loopback0\" ");
    match rule.split_whitespace().last() {
        Some("accept") => chain.starts_with("filter-") || wsl2,
        Some("return") => wsl2,
        _ => false,
    }
}

#[derive(Debug, Default)]
struct Table<'a> {
    family: &'a str,
    name: &'a str,
    chains: Vec<Chain<'a>>,
}

#[derive(Debug, Default)]
struct Chain<'a> {
    name: &'a str,
    hook: Option<&'a str>,
    is_nat: bool,
    drops: bool,
    rules: Vec<&'a str>,
}

/// Reads tables, their chains and their chains' rules; sets, maps and the like are passed over.
fn parse(listed: &str) -> Vec<Table<'_>> {
    let mut tables: Vec<Table<'_>> = Vec::new();
    let mut in_chain = false;
    // Braces open: 1 in a table, 2 in a chain or set. A rule of many lines has more.
    let mut depth = 0_usize;
    for line in listed
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
    {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (depth, &words[..]) {
            (0, ["table", family, name, ..]) => {
                tables.push(Table {
                    family,
                    name,
                    chains: Vec::new(),
                });
            }
            (1, ["chain", name, ..]) => {
                in_chain = true;
                if let Some(table) = tables.last_mut() {
                    table.chains.push(Chain {
                        name,
                        ..Chain::default()
                    });
                }
            }
            (1, _) => in_chain = false,
            (2, [first, ..]) if in_chain && *first != "}" => {
                if let Some(chain) = tables.last_mut().and_then(|table| table.chains.last_mut()) {
                    read_chain_line(chain, line, &words);
                }
            }
            _ => {}
        }
        depth = (depth + line.matches('{').count()).saturating_sub(line.matches('}').count());
    }
    tables
}

fn read_chain_line<'a>(chain: &mut Chain<'a>, line: &'a str, words: &[&'a str]) {
    match words {
        ["type", kind, "hook", hook, ..] => {
            chain.hook = Some(hook);
            chain.is_nat = *kind == "nat";
            chain.drops = line.contains("policy drop");
        }
        ["comment", ..] => {}
        _ => chain.rules.push(line),
    }
}
