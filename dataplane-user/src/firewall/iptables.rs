//! Rules as `iptables-save` prints them.
//!
//! Docker's rules are known by their shape, chain by chain; the interfaces in them must be Docker's
//! bridges, so that a rule with a shape of Docker's about another interface is not taken for its own.

use std::collections::{BTreeSet, HashMap};

use super::shapes::DOCKERS;

/// The hooks that a forwarded packet meets: table and built-in chain.
const FORWARD_PATH: [(&str, &str); 8] = [
    ("raw", "PREROUTING"),
    ("mangle", "PREROUTING"),
    ("nat", "PREROUTING"),
    ("mangle", "FORWARD"),
    ("filter", "FORWARD"),
    ("security", "FORWARD"),
    ("mangle", "POSTROUTING"),
    ("nat", "POSTROUTING"),
];

/// More jumps in a row than any firewall makes; the kernel has no loops.
const DEEPEST: usize = 32;

/// Whether Docker's rules are among those of `saved`.
///
/// # Errors
/// Why somebody else's rules count: one clause that names the first.
pub fn check(saved: &str) -> Result<bool, String> {
    let ruleset = Ruleset::parse(saved)?;
    for (table, hook) in FORWARD_PATH {
        ruleset.check_hook(table, hook)?;
    }
    Ok(!ruleset.bridges.is_empty() || ruleset.chains.contains_key(&("nat", "DOCKER")))
}

/// Chains of the nat table in which published ports are translated: Docker's, and podman's.
pub(super) const TRANSLATING: [&str; 2] = ["DOCKER", "NETAVARK-HOSTPORT-DNAT"];

/// Whether Docker, or podman's netavark, translates packets by rules of `saved`.
pub(super) fn translates(saved: &str) -> bool {
    Ruleset::parse(saved).is_ok_and(|ruleset| {
        let has = |chain| ruleset.chains.contains_key(&("nat", chain));
        TRANSLATING.into_iter().any(has)
    })
}

/// The names of the tables in `saved`.
pub(super) fn tables(saved: &str) -> impl Iterator<Item = &str> {
    saved.lines().filter_map(|line| line.strip_prefix('*'))
}

#[derive(Default)]
struct Chain<'a> {
    /// None for a chain that is not built in.
    policy: Option<&'a str>,
    rules: Vec<&'a str>,
}

#[derive(Default)]
struct Ruleset<'a> {
    chains: HashMap<(&'a str, &'a str), Chain<'a>>,
    /// Docker's bridges that can publish ports.
    bridges: BTreeSet<&'a str>,
    /// Docker's bridges of internal networks, which cannot.
    internal: BTreeSet<&'a str>,
    /// Docker's bridges that it keeps apart from the others, be it by no other rules: so with networks
    /// without IPv6 in ip6tables.
    isolated: BTreeSet<&'a str>,
}

impl<'a> Ruleset<'a> {
    fn parse(saved: &'a str) -> Result<Self, String> {
        let mut ruleset = Self::default();
        let mut table = "";
        for line in saved.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('*') {
                table = name;
            } else if let Some(chain) = line.strip_prefix(':') {
                let mut words = chain.split_whitespace();
                let name = words.next().unwrap_or_default();
                let policy = words.next().filter(|policy| *policy != "-");
                ruleset.chains.entry((table, name)).or_default().policy = policy;
            } else if let Some(rule) = line.strip_prefix("-A ") {
                let (chain, rule) = rule.split_once(' ').unwrap_or((rule, ""));
                ruleset
                    .chains
                    .entry((table, chain))
                    .or_default()
                    .rules
                    .push(rule);
            } else if line.starts_with('#') && line.contains("use 'nft' tool") {
                // iptables-nft's words for a table with something in it that is not iptables'.
                return Err(line.trim_start_matches(['#', ' ']).to_owned());
            } else if !(line.is_empty() || line.starts_with('#') || line == "COMMIT") {
                return Err(format!("the ruleset has a line of no known form: {line}"));
            }
        }
        ruleset.find_bridges();
        Ok(ruleset)
    }

    fn find_bridges(&mut self) {
        let rules = |chain| {
            self.chains
                .get(&("filter", chain))
                .into_iter()
                .flat_map(|it| &it.rules)
        };
        let interface = |rule: &'a str, option: &str| {
            let mut words = rule.split_whitespace().skip_while(|word| *word != option);
            words.nth(1)
        };
        let to_docker = ["FORWARD", "DOCKER-BRIDGE"].into_iter().flat_map(rules);
        let to_docker = to_docker.filter(|rule| rule.ends_with("-j DOCKER"));
        // 28.0.0 jumps by ipset, but its chain DOCKER ends with a rule for each bridge.
        let ends = rules("DOCKER").filter(|rule| rule.starts_with("! -i "));
        let bridges = to_docker
            .chain(ends)
            .filter_map(|rule| interface(rule, "-o"))
            .collect();
        let walls = ["DOCKER-ISOLATION-STAGE-1", "DOCKER-INTERNAL"]
            .into_iter()
            .flat_map(rules);
        let walls = walls.filter(|rule| rule.starts_with("! -") && rule.ends_with("-j DROP"));
        let walled = walls.filter_map(|rule| interface(rule, "-o").or(interface(rule, "-i")));
        self.internal = walled
            .collect::<BTreeSet<_>>()
            .difference(&bridges)
            .copied()
            .collect();
        self.bridges = bridges;
        let leaving = rules("DOCKER-ISOLATION-STAGE-1").filter_map(|rule| {
            let bridge = interface(rule, "-i")?;
            let leaves = format!("-i {bridge} ! -o {bridge} -j DOCKER-ISOLATION-STAGE-2");
            (*rule == leaves).then_some(bridge)
        });
        let shut_in = leaving.filter(|bridge| {
            let enters = format!("-o {bridge} -j DROP");
            rules("DOCKER-ISOLATION-STAGE-2").any(|rule| *rule == enters)
        });
        self.isolated = shut_in.collect();
    }

    /// Whether forwarded packets meet Docker's rules. Where no network has IPv6, these are but its chains.
    fn asks_docker(&self) -> bool {
        let forward = self.chains.get(&("filter", "FORWARD"));
        let mut rules = forward.into_iter().flat_map(|chain| &chain.rules);
        !self.bridges.is_empty()
            || rules.any(|rule| ["-j DOCKER-FORWARD", "-j DOCKER-ISOLATION-STAGE-1"].contains(rule))
    }

    fn check_hook(&self, table: &str, hook: &str) -> Result<(), String> {
        let Some(chain) = self.chains.get(&(table, hook)) else {
            return Ok(());
        };
        match chain.policy {
            None | Some("ACCEPT") => {}
            // Docker sets it, and accepts in its own chains what is published.
            Some("DROP") if (table, hook) == ("filter", "FORWARD") && self.asks_docker() => {}
            Some(policy) => return Err(format!("the policy of {table} {hook} is {policy}")),
        }
        self.check_chain(table, hook, 0)
    }

    /// Checks a chain and what it jumps to. A jump to a chain of nothing but harmless rules is
    /// harmless, whoever's it is: that is what a firewall leaves behind when it is switched off.
    fn check_chain(&self, table: &str, name: &str, depth: usize) -> Result<(), String> {
        let Some(chain) = self.chains.get(&(table, name)) else {
            return Ok(());
        };
        if depth > DEEPEST {
            return Err(format!("{table} {name} is jumped to in a circle"));
        }
        let returns_to_caller = chain.policy.is_none() && !name.starts_with("DOCKER");
        for rule in &chain.rules {
            if name == "DOCKER-USER" && *rule != "-j RETURN" {
                return Err(format!("DOCKER-USER has rules: -A {name} {rule}"));
            }
            let words = words(rule);
            let target = words
                .iter()
                .skip_while(|word| *word != "-j")
                .nth(1)
                .map(String::as_str);
            if let Some(target) = target.filter(|it| self.chains.contains_key(&(table, *it))) {
                self.check_chain(table, target, depth + 1)?;
            } else if !self.is_dockers(table, name, &words)
                && !is_harmless(table, returns_to_caller, &words, target)
            {
                let why = format!("{table} {name} has rules that are not Docker's");
                return Err(format!("{why}: -A {name} {rule}"));
            }
        }
        Ok(())
    }

    fn is_dockers(&self, table: &str, chain: &str, words: &[String]) -> bool {
        DOCKERS
            .iter()
            .filter(|(t, c, _)| (*t, *c) == (table, chain))
            .any(|(_, _, shape)| {
                let mut shape = shape.split(' ');
                let all = words.iter().all(|word| {
                    shape
                        .next()
                        .is_some_and(|expected| self.fits(expected, word))
                });
                all && shape.next().is_none()
            })
    }

    fn fits(&self, expected: &str, word: &str) -> bool {
        match expected {
            "BR" => [&self.bridges, &self.internal, &self.isolated]
                .iter()
                .any(|bridges| bridges.contains(word)),
            "INT" => self.internal.contains(word),
            "IP" | "TO" => word.contains(['.', ':']),
            "N" => word.parse::<u16>().is_ok(),
            "P" => ["tcp", "udp", "sctp"].contains(&word),
            _ => expected == word,
        }
    }
}

/// Whether a rule can neither deny nor change a packet.
fn is_harmless(
    table: &str,
    returns_to_caller: bool,
    words: &[String],
    target: Option<&str>,
) -> bool {
    if words.iter().any(|word| word == "-g") {
        return false;
    }
    match target {
        // It only counts.
        None | Some("LOG" | "NFLOG") => true,
        // In nat and raw, accepting early skips what Docker would have done.
        Some("ACCEPT") => table == "filter",
        // In a built-in chain the policy would decide, in one of Docker's no rule of Docker's.
        Some("RETURN") => returns_to_caller,
        Some(_) => false,
    }
}

/// Splits a rule at blanks; what stands in quotes is one word and keeps its first quote, so that it
/// is never taken for an option.
fn words(rule: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut escaped) = (false, false);
    for c in rule.chars() {
        match c {
            _ if escaped => {
                word.push(c);
                escaped = false;
            }
            '\\' if quoted => escaped = true,
            '"' => {
                quoted = !quoted;
                if quoted {
                    word.push(c);
                }
            }
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            _ => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}
