//! Conntrack's settings of this network namespace, below /proc/sys/net/netfilter.

use std::{fs, io, path::Path};

use anyhow::Context as _;
use dataplane_common::state::{State, Timeouts};

/// Where they are. The kernel shows the namespace of the thread that looks.
const FOLDER: &str = "/proc/sys/net/netfilter";

/// Whether packets out of a TCP connection's window are tracked all the same.
const TCP_BE_LIBERAL: &str = "nf_conntrack_tcp_be_liberal";

/// The file of each state's time-out, in seconds.
const TIMEOUTS: [(State, &str); 13] = [
    (State::SynSent, "tcp_timeout_syn_sent"),
    (State::SynRecv, "tcp_timeout_syn_recv"),
    (State::Established, "tcp_timeout_established"),
    (State::FinWait, "tcp_timeout_fin_wait"),
    (State::CloseWait, "tcp_timeout_close_wait"),
    (State::LastAck, "tcp_timeout_last_ack"),
    (State::TimeWait, "tcp_timeout_time_wait"),
    (State::Close, "tcp_timeout_close"),
    // Conntrack has a time-out for it, but no file.
    (State::SynSent2, "tcp_timeout_syn_sent"),
    (State::Unanswered, "udp_timeout"),
    (State::Answered, "udp_timeout"),
    (State::Stream, "udp_timeout_stream"),
    // Of one without replies that has been picked up (nf_conntrack_tcp_packet).
    (State::PickedUp, "tcp_timeout_unacknowledged"),
];

/// The time-outs in force; where one cannot be read, as without conntrack, its default.
pub fn timeouts() -> Timeouts {
    timeouts_in(Path::new(FOLDER))
}

fn timeouts_in(folder: &Path) -> Timeouts {
    let mut timeouts = Timeouts::DEFAULT;
    for (state, name) in TIMEOUTS {
        let text = fs::read_to_string(folder.join(format!("nf_conntrack_{name}")));
        if let Some(seconds) = text.ok().and_then(|text| text.trim().parse().ok()) {
            timeouts = timeouts.with(state, seconds);
        }
    }
    timeouts
}

/// Whether this network namespace has conntrack.
pub fn is_there() -> bool {
    Path::new(FOLDER).join("nf_conntrack_max").exists()
}

/// Whether conntrack is liberal about TCP windows; none without conntrack.
///
/// # Errors
///
/// The setting is there and cannot be read.
pub fn tcp_be_liberal() -> anyhow::Result<Option<bool>> {
    let path = Path::new(FOLDER).join(TCP_BE_LIBERAL);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim() != "0")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Has conntrack be liberal about TCP windows, or strict again. Returns whether there is a conntrack to
/// be so.
///
/// # Errors
///
/// The setting is there and cannot be changed.
pub fn set_tcp_be_liberal(liberal: bool) -> anyhow::Result<bool> {
    let path = Path::new(FOLDER).join(TCP_BE_LIBERAL);
    // Without `create`: procfs would refuse a missing file as not permitted.
    let mut file = match fs::OpenOptions::new().write(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot change {}", path.display()));
        }
    };
    io::Write::write_all(&mut file, if liberal { b"1" } else { b"0" })
        .with_context(|| format!("cannot change {}", path.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_or_strange_has_its_default() {
        assert_eq!(timeouts_in(Path::new("/nowhere")), Timeouts::DEFAULT);
        let folder = std::env::temp_dir().join(format!("portway-sysctls-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        for (name, text) in [
            ("nf_conntrack_tcp_timeout_established", "600\n"),
            ("nf_conntrack_udp_timeout_stream", "180\n"),
            ("nf_conntrack_udp_timeout", "soon\n"),
        ] {
            fs::write(folder.join(name), text).expect("a file");
        }
        let timeouts = timeouts_in(&folder);
        fs::remove_dir_all(&folder).expect("no folder");
        assert_eq!(
            timeouts,
            Timeouts::DEFAULT
                .with(State::Established, 600)
                .with(State::Stream, 180)
        );
    }
}
