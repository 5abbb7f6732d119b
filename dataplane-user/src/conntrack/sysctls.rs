//! Conntrack's settings of this network namespace, below /proc/sys/net/netfilter.

use std::{fs, io, path::Path};

use anyhow::Context as _;

/// Where they are. The kernel shows the namespace of the thread that looks.
const FOLDER: &str = "/proc/sys/net/netfilter";

/// Whether packets out of a TCP connection's window are tracked all the same.
const TCP_BE_LIBERAL: &str = "nf_conntrack_tcp_be_liberal";

/// Seconds of silence after which conntrack forgets a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP: a SYN has been seen.
    pub tcp_syn_sent: u32,
    /// TCP: its answer has been seen.
    pub tcp_syn_recv: u32,
    /// TCP: open.
    pub tcp_established: u32,
    /// TCP: one side has sent FIN.
    pub tcp_fin_wait: u32,
    /// TCP: the other side has acknowledged that.
    pub tcp_close_wait: u32,
    /// TCP: both have sent FIN.
    pub tcp_last_ack: u32,
    /// TCP: both FINs are acknowledged.
    pub tcp_time_wait: u32,
    /// TCP: somebody has sent RST.
    pub tcp_close: u32,
    /// UDP: only one side has been heard.
    pub udp: u32,
    /// UDP: both have.
    pub udp_stream: u32,
}

impl Default for Timeouts {
    /// What conntrack does unless told otherwise: net/netfilter/nf_conntrack_proto_tcp.c and _udp.c.
    fn default() -> Self {
        Self {
            tcp_syn_sent: 120,
            tcp_syn_recv: 60,
            tcp_established: 432_000,
            tcp_fin_wait: 120,
            tcp_close_wait: 60,
            tcp_last_ack: 30,
            tcp_time_wait: 120,
            tcp_close: 10,
            udp: 30,
            udp_stream: 120,
        }
    }
}

impl Timeouts {
    /// Those in force; where one cannot be read, as without conntrack, its default.
    pub fn read() -> Self {
        Self::from_folder(Path::new(FOLDER))
    }

    fn from_folder(folder: &Path) -> Self {
        let default = Self::default();
        let read = |name: &str, default| {
            let text = fs::read_to_string(folder.join(format!("nf_conntrack_{name}")));
            text.ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(default)
        };
        Self {
            tcp_syn_sent: read("tcp_timeout_syn_sent", default.tcp_syn_sent),
            tcp_syn_recv: read("tcp_timeout_syn_recv", default.tcp_syn_recv),
            tcp_established: read("tcp_timeout_established", default.tcp_established),
            tcp_fin_wait: read("tcp_timeout_fin_wait", default.tcp_fin_wait),
            tcp_close_wait: read("tcp_timeout_close_wait", default.tcp_close_wait),
            tcp_last_ack: read("tcp_timeout_last_ack", default.tcp_last_ack),
            tcp_time_wait: read("tcp_timeout_time_wait", default.tcp_time_wait),
            tcp_close: read("tcp_timeout_close", default.tcp_close),
            udp: read("udp_timeout", default.udp),
            udp_stream: read("udp_timeout_stream", default.udp_stream),
        }
    }
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
        assert_eq!(
            Timeouts::from_folder(Path::new("/nowhere")),
            Timeouts::default()
        );
        let folder = std::env::temp_dir().join(format!("portway-sysctls-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        for (name, text) in [
            ("nf_conntrack_tcp_timeout_established", "600\n"),
            ("nf_conntrack_udp_timeout_stream", "180\n"),
            ("nf_conntrack_udp_timeout", "soon\n"),
        ] {
            fs::write(folder.join(name), text).expect("a file");
        }
        let timeouts = Timeouts::from_folder(&folder);
        fs::remove_dir_all(&folder).expect("no folder");
        assert_eq!(
            timeouts,
            Timeouts {
                tcp_established: 600,
                udp_stream: 180,
                ..Timeouts::default()
            }
        );
    }
}
