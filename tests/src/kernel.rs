//! What this machine's kernel is, where tests expect different things of different ones.

use std::sync::LazyLock;

use nix::sys::utsname::uname;

/// Major and minor number.
pub type Release = (u32, u32);

/// The first with TCX.
pub const TCX: Release = (6, 6);

/// The first that tells what drivers can do in XDP, and which links take frames from it (`netdev` over generic
/// netlink).
pub const XDP_FEATURES: Release = (6, 3);

/// This machine's; one that does not begin with numbers counts as the latest.
pub fn release() -> Release {
    static RELEASE: LazyLock<Release> = LazyLock::new(|| {
        let text = uname()
            .ok()
            .and_then(|name| name.release().to_str().map(str::to_owned));
        text.as_deref().and_then(parse).unwrap_or((u32::MAX, 0))
    });
    *RELEASE
}

/// What portway calls its TC hooks here unless told otherwise.
pub fn tc_hook() -> &'static str {
    if release() >= TCX { "tcx" } else { "clsact" }
}

fn parse(release: &str) -> Option<Release> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_their_numbers() {
        assert_eq!(parse("6.1.0-56-cloud-amd64"), Some((6, 1)));
        assert!(parse("6.12.117+deb12-cloud-amd64") > Some(TCX));
        assert_eq!(parse("rolling"), None);
    }
}
