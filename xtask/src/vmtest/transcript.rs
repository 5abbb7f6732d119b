//! What a virtual machine said: the outcome of each test, and what the programs cost the verifier.

use std::collections::BTreeMap;

use super::kernel::Kernel;
use crate::outcome::Outcomes;

/// The transcript of one machine.
#[derive(Debug)]
pub struct Transcript {
    /// Which kernel was asked for.
    pub kernel: Kernel,
    /// What it calls itself.
    pub release: String,
    /// What its files of tests came to.
    pub outcomes: Outcomes,
    /// The instructions that the verifier has gone through, by program.
    pub verified: BTreeMap<String, u32>,
    /// What the kernel complained of.
    pub complaints: Vec<String>,
}

impl Transcript {
    fn new(kernel: Kernel) -> Self {
        Self {
            kernel,
            release: String::new(),
            outcomes: Outcomes::default(),
            verified: BTreeMap::new(),
            complaints: Vec::new(),
        }
    }

    /// What a machine's tests and its console have said.
    pub fn of(kernel: Kernel, output: &str, console: &str) -> Self {
        let mut transcript = Self::new(kernel);
        output.lines().for_each(|line| transcript.read(line));
        transcript.read_console(console);
        transcript
    }

    /// Takes in a line of the tests.
    fn read(&mut self, line: &str) {
        let Some(marker) = line.strip_prefix("vmtest: ") else {
            self.read_output(line);
            return;
        };
        let words: Vec<_> = marker.split_whitespace().collect();
        match words[..] {
            ["kernel", release] => self.release = release.to_owned(),
            _ => self.outcomes.mark(&words),
        }
    }

    /// Looks through the console for what no kernel should say.
    fn read_console(&mut self, console: &str) {
        const COMPLAINTS: [&str; 3] = ["BUG:", "WARNING:", "Oops"];
        let complaints = console
            .lines()
            .filter(|line| COMPLAINTS.iter().any(|complaint| line.contains(complaint)))
            .map(|line| line.trim().to_owned());
        self.complaints.extend(complaints);
    }

    /// Whether there is nothing to look after.
    pub fn is_good(&self) -> bool {
        self.outcomes.are_good() && self.complaints.is_empty()
    }

    fn read_output(&mut self, line: &str) {
        self.outcomes.read(line);
        // What tests/tests/verifier.rs prints.
        if let Some((program, count)) = verified(line) {
            self.verified.insert(program.to_owned(), count);
        }
    }
}

/// `portway_reply` and 303305 from `verified portway_reply 303305`, wherever in the line.
fn verified(line: &str) -> Option<(&str, u32)> {
    let (_, said) = line.split_once("verified ")?;
    let (program, count) = said.split_once(' ')?;
    Some((program, count.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
vmtest: kernel 6.1.0-56-cloud-amd64
vmtest: begin verifier
test programs_load ... verified portway_reply 303305
verified portway_xdp 44146
ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
vmtest: end verifier 0
vmtest: begin hooks
SKIPPED tcx: TCX: Linux 6.1 has none

test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s
vmtest: end hooks 0
";

    fn read(output: &str) -> Transcript {
        Transcript::of(Kernel::V6_1, output, "")
    }

    #[test]
    fn outcomes_go_to_their_files() {
        let whole = read(&format!("{OUTPUT}vmtest: done\n"));
        assert_eq!(whole.release, "6.1.0-56-cloud-amd64");
        let files = &whole.outcomes.files;
        assert_eq!(files[1].tally.reasons, ["tcx: TCX: Linux 6.1 has none"]);
        let files: Vec<_> = files
            .iter()
            .map(|file| (file.file.as_str(), file.tally.to_string()))
            .collect();
        assert_eq!(
            files[0],
            ("verifier", "1 passed, 0 failed, 0 skipped".into())
        );
        assert_eq!(files[1], ("hooks", "5 passed, 0 failed, 1 skipped".into()));
        assert_eq!(whole.verified["portway_reply"], 303_305);
        assert_eq!(whole.verified["portway_xdp"], 44_146);
        assert!(whole.is_good());
    }

    #[test]
    fn a_machine_that_ends_early_is_not_good() {
        assert!(!read(OUTPUT).is_good());
        let crashed = read("vmtest: begin hooks\nvmtest: end hooks 139\nvmtest: done\n");
        assert!(!crashed.is_good());
    }

    #[test]
    fn nor_is_one_whose_kernel_complains() {
        let mut transcript = read(&format!("{OUTPUT}vmtest: done\n"));
        transcript
            .read_console("[ 1.0] Run /init\n[ 2.0] WARNING: CPU: 0 PID: 1 at net/core/dev.c:1\n");
        assert_eq!(transcript.complaints.len(), 1);
        assert!(!transcript.is_good());
    }
}
