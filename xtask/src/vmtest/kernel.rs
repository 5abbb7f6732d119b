//! The kernels that portway is tested on.

use clap::ValueEnum;

use super::archive::Suite;
use crate::named;

/// A kernel of Debian's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kernel {
    /// Debian 12's, the oldest that portway runs on.
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13's.
    #[value(name = "6.12")]
    V6_12,
    /// What Debian has packaged last.
    #[value(name = "newest")]
    Newest,
}

impl Kernel {
    /// What it is called on the command line.
    pub fn name(self) -> String {
        named::name(self)
    }

    /// Where it is to be had.
    pub fn suite(self) -> Suite {
        match self {
            Self::V6_1 | Self::V6_12 => Suite::Bookworm,
            Self::Newest => Suite::Sid,
        }
    }

    /// The package that always depends on the latest build. Those for clouds are small, and have all that a
    /// virtual machine wants.
    pub fn package(self) -> &'static str {
        match self {
            Self::V6_1 | Self::Newest => "linux-image-cloud-amd64",
            Self::V6_12 => "linux-image-6.12-cloud-amd64",
        }
    }

    /// Whether a package, of those that it depends on, is a part of it. What else is there sets up a disk to boot
    /// from.
    pub fn consists_of(package: &str) -> bool {
        ["linux-image-", "linux-binary-", "linux-modules-"]
            .iter()
            .any(|part| package.starts_with(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_consists_of() {
        assert!(Kernel::consists_of("linux-image-6.1.0-56-cloud-amd64"));
        assert!(Kernel::consists_of(
            "linux-modules-7.2.13+deb14-cloud-amd64"
        ));
        assert!(!Kernel::consists_of("linux-base"));
        assert!(!Kernel::consists_of("initramfs-tools"));
    }
}
