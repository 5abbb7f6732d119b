//! What netfilter counted in a namespace.

use anyhow::{Context, Result};

use crate::netns::Netns;

/// How many packets iptables' DNAT rules for a host port have matched: one for each conversation that
/// began on the slow path. None without such a rule.
///
/// # Errors
/// `iptables-save` fails, or prints what nobody expects.
pub fn dnat_packets(netns: &Netns, protocol: &str, port: u16) -> Result<Option<u64>> {
    let rules = saved(netns, "iptables-save")?;
    dnat_packets_in(&rules, protocol, port)
}

/// The same of ip6tables.
///
/// # Errors
/// As [`dnat_packets`].
pub fn dnat_packets_v6(netns: &Netns, protocol: &str, port: u16) -> Result<Option<u64>> {
    let rules = saved(netns, "ip6tables-save")?;
    dnat_packets_in(&rules, protocol, port)
}

fn saved(netns: &Netns, tool: &str) -> Result<String> {
    netns.command(tool).args(["-c", "-t", "nat"]).text()
}

/// The same in what `iptables-save -c` has printed.
fn dnat_packets_in(rules: &str, protocol: &str, port: u16) -> Result<Option<u64>> {
    let port = port.to_string();
    let mut total = None;
    for rule in rules.lines() {
        let words: Vec<_> = rule.split_whitespace().collect();
        let has = |option: &str, value: &str| words.windows(2).any(|pair| pair == [option, value]);
        if has("-j", "DNAT") && has("-p", protocol) && has("--dport", &port) {
            let packets = counted(words[0]).with_context(|| format!("no counter in {rule:?}"))?;
            *total.get_or_insert(0) += packets;
        }
    }
    Ok(total)
}

/// The packets of `[packets:bytes]`.
fn counted(counter: &str) -> Option<u64> {
    counter.strip_prefix('[')?.split(':').next()?.parse().ok()
}

/// Every rule and chain policy of the namespace, without counters, dates and comments.
///
/// # Errors
/// `iptables-save` fails.
pub fn rules(netns: &Netns) -> Result<Vec<String>> {
    let rules = netns.command("iptables-save").text()?;
    Ok(rules
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| match line.split_once(" [") {
            Some((chain, _)) if line.starts_with(':') => chain.to_owned(),
            _ => line.to_owned(),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dnat_rules_of_a_port_are_added_up() -> Result<()> {
        let rules = "\
*nat
:DOCKER - [0:0]
[7:420] -A DOCKER -i docker0 -j RETURN
[3:180] -A DOCKER ! -i docker0 -p tcp -m tcp --dport 9000 -j DNAT --to-destination 172.17.0.2:80
[2:120] -A DOCKER -d 10.0.0.1/32 -p tcp -m tcp --dport 9000 -j DNAT --to-destination 172.17.0.3:80
[9:540] -A DOCKER ! -i docker0 -p udp -m udp --dport 9000 -j DNAT --to-destination 172.17.0.2:53
COMMIT";
        assert_eq!(dnat_packets_in(rules, "tcp", 9000)?, Some(5));
        assert_eq!(dnat_packets_in(rules, "udp", 9000)?, Some(9));
        assert_eq!(dnat_packets_in(rules, "tcp", 900)?, None);
        Ok(())
    }
}
