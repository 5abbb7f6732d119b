//! Packages out of Debian's archive, without installing them: apt with a configuration of its own resolves and
//! verifies them as if for an empty machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::command::{run, text};

/// What signs the archive, in Debian's package `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A release of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Debian 12, with its security updates.
    Bookworm,
    /// What the next Debian is made of.
    Sid,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Sid => "sid",
        }
    }

    /// Its sources.list. A mirror whose lists have expired still has a newest kernel; their signature counts.
    fn sources(self) -> String {
        let options = format!("[arch=amd64 signed-by={KEYRING} check-valid-until=no]");
        let main = format!(
            "deb {options} http://deb.debian.org/debian {} main\n",
            self.name()
        );
        let security = "http://deb.debian.org/debian-security";
        match self {
            Self::Bookworm => format!("{main}deb {options} {security} bookworm-security main\n"),
            Self::Sid => main,
        }
    }
}

/// A package's file in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    uri: String,
    file: String,
    sha256: String,
}

impl Package {
    /// Its name.
    pub fn name(&self) -> &str {
        self.file.split('_').next().unwrap_or_default()
    }

    /// Its file without the suffix: name, version and architecture.
    pub fn stem(&self) -> &str {
        self.file.trim_end_matches(".deb")
    }
}

/// One suite, with apt's state of it and the packages fetched so far in a folder of this program's.
#[derive(Debug)]
pub struct Archive {
    suite: Suite,
    configuration: PathBuf,
    packages: PathBuf,
}

impl Archive {
    /// Makes the configuration, and reads the suite's package lists. A mirror that does not answer is no reason to
    /// stop: what was fetched before may do.
    ///
    /// # Errors
    /// No Debian, or the file system's.
    pub fn open(folder: &Path, suite: Suite) -> Result<Self> {
        if !Path::new(KEYRING).is_file() {
            bail!("{KEYRING} is missing: install Debian's package debian-archive-keyring");
        }
        let state = folder.join("apt").join(suite.name());
        let packages = folder.join("packages");
        for path in [&state.join("lists/partial"), &packages] {
            fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        let archive = Self {
            suite,
            configuration: state.join("apt.conf"),
            packages,
        };
        fs::write(state.join("sources.list"), suite.sources())?;
        // Nothing is installed on the machine that apt is to think of.
        fs::write(state.join("status"), "")?;
        fs::write(&archive.configuration, configuration(&state))?;
        eprintln!(
            "xtask: reading the package lists of Debian {}",
            suite.name()
        );
        let update = archive.apt("apt-get").args(["-qq", "update"]).status();
        if !update
            .context("apt-get does not start: is this Debian?")?
            .success()
        {
            eprintln!("xtask: going on with the package lists that are here");
        }
        Ok(archive)
    }

    /// A package and all that it depends on.
    ///
    /// # Errors
    /// The archive has no such package.
    pub fn with_dependencies(&self, package: &str) -> Result<Vec<Package>> {
        let mut apt = self.apt("apt-get");
        apt.args([
            "-qq",
            "install",
            "--print-uris",
            "--no-install-recommends",
            package,
        ]);
        let uris = text(&mut apt)
            .with_context(|| format!("Debian {} does not have {package}", self.suite.name()))?;
        uris.lines()
            .map(|line| package_of(line).with_context(|| format!("apt says {line}")))
            .collect()
    }

    /// A package's file, fetched unless it is here already; either way with the checksum that the signed lists
    /// have.
    ///
    /// # Errors
    /// It cannot be fetched.
    pub fn fetch(&self, package: &Package) -> Result<PathBuf> {
        let path = self.packages.join(&package.file);
        if path.is_file() && sha256(&path)? == package.sha256 {
            return Ok(path);
        }
        let checksum = format!("SHA256:{}", package.sha256);
        let mut helper = self.apt("/usr/lib/apt/apt-helper");
        helper
            .args(["-qq", "download-file", &package.uri])
            .arg(&path)
            .arg(checksum);
        run(helper.stdout(Stdio::null())).with_context(|| {
            format!(
                "cannot fetch {}: if it is superseded, the next try finds its successor",
                package.uri
            )
        })?;
        Ok(path)
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        apt.env("APT_CONFIG", &self.configuration)
            .stdin(Stdio::null());
        apt
    }
}

/// Unpacks a package's file into a folder.
///
/// # Errors
/// The file is damaged, or the disk full.
pub fn unpack(package: &Path, folder: &Path) -> Result<()> {
    run(Command::new("dpkg-deb")
        .arg("--extract")
        .arg(package)
        .arg(folder))
}

/// apt's configuration. It takes nothing from the machine's own.
fn configuration(state: &Path) -> String {
    let state = state.display();
    format!(
        "Dir::State \"{state}\";\n\
         Dir::State::lists \"{state}/lists\";\n\
         Dir::State::status \"{state}/status\";\n\
         Dir::Cache \"{state}/cache\";\n\
         Dir::Etc::sourcelist \"{state}/sources.list\";\n\
         Dir::Etc::sourceparts \"/dev/null\";\n\
         Dir::Etc::parts \"/dev/null\";\n\
         Dir::Etc::preferences \"/dev/null\";\n\
         Dir::Etc::preferencesparts \"/dev/null\";\n\
         Acquire::ForceHash \"SHA256\";\n\
         Acquire::Languages \"none\";\n\
         APT::Architecture \"amd64\";\n\
         APT::Sandbox::User \"\";\n\
         Debug::NoLocking \"1\";\n"
    )
}

/// A line of `--print-uris`: `'URI' FILE SIZE SHA256:CHECKSUM`.
fn package_of(line: &str) -> Option<Package> {
    let mut words = line.split_whitespace();
    let uri = words.next()?.strip_prefix('\'')?.strip_suffix('\'')?;
    let file = words.next()?;
    let sha256 = words.nth(1)?.strip_prefix("SHA256:")?;
    Some(Package {
        uri: uri.to_owned(),
        file: file.to_owned(),
        sha256: sha256.to_owned(),
    })
}

fn sha256(path: &Path) -> Result<String> {
    let sum = text(Command::new("sha256sum").arg("--").arg(path))?;
    Ok(sum.split_whitespace().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_read_off_what_apt_prints() {
        let line = "'http://deb.debian.org/debian/pool/main/b/busybox/busybox_1.37.0-6%2bb3_amd64.deb' \
                    busybox_1%3a1.37.0-6+b3_amd64.deb 970908 SHA256:0123abcd";
        let package = package_of(line).expect("a package");
        assert_eq!(package.name(), "busybox");
        assert_eq!(package.stem(), "busybox_1%3a1.37.0-6+b3_amd64");
        assert_eq!(package.sha256, "0123abcd");
        assert!(package.uri.ends_with("busybox_1.37.0-6%2bb3_amd64.deb"));
        assert_eq!(package_of("Reading package lists..."), None);
        let weak = "'http://deb.debian.org/x.deb' x_1_amd64.deb 970908 MD5Sum:0123abcd";
        assert_eq!(package_of(weak), None, "no checksum that counts");
    }
}
