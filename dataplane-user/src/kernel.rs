//! Which kernels portway is for.
//!
//! The number alone decides nothing: distributions carry BPF back into kernels that go on calling themselves old. Whether
//! the programs load is what tells, and where they do not, an old number is the likely reason.

use nix::sys::utsname::uname;

#[cfg(test)]
mod stack;

/// The oldest release that portway is tested on (docs/compatibility.md). What the programs need is not all older:
/// `bpf_redirect_peer` and `bpf_redirect_neigh` came with 5.10, the coarse clock with 5.11, the MTU in
/// routing look-ups with 5.12; but verifiers before 6.1 have not been seen to accept them.
const OLDEST: (u32, u32) = (6, 1);

/// Says of an error in loading that this kernel is too old, if it is.
pub fn explain(error: anyhow::Error) -> anyhow::Error {
    let release = uname().map(|name| name.release().to_string_lossy().into_owned());
    match release {
        Ok(release) if is_too_old(&release) => error.context(complaint(&release)),
        _ => error,
    }
}

/// A release that does not begin with numbers is given the benefit of the doubt.
fn is_too_old(release: &str) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    matches!(
        (numbers.next(), numbers.next()),
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < OLDEST
    )
}

fn complaint(release: &str) -> String {
    let (major, minor) = OLDEST;
    format!("kernel {release} is too old: portway needs Linux {major}.{minor} or later")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_their_numbers() {
        for release in ["5.15.0-105-generic", "5.10.0-28-amd64", "4.19.0", "3.10"] {
            assert!(is_too_old(release), "{release}");
        }
        for release in ["6.1.0-18-amd64", "6.1", "6.18.44", "10.0", "rolling"] {
            assert!(!is_too_old(release), "{release}");
        }
    }

    #[test]
    fn old_kernels_are_named_in_a_sentence() {
        let refusal = anyhow::anyhow!("the kernel refuses the eBPF program portway_forward");
        let error = refusal.context(complaint("5.10.0-28-amd64"));
        assert_eq!(
            format!("{error:#}"),
            "kernel 5.10.0-28-amd64 is too old: portway needs Linux 6.1 or later: \
             the kernel refuses the eBPF program portway_forward"
        );
    }
}
