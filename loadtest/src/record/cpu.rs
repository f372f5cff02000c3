//! What the generator itself costs, from the kernel's own account of the thread.

/// CPU account of one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ThreadCpu {
    /// Time on a core.
    pub used_ns: u64,
    /// Time ready to run without a core: the machine was too small.
    pub waited_ns: u64,
}

impl ThreadCpu {
    /// The account of the calling thread, where the kernel keeps one.
    pub(crate) fn of_this_thread() -> Option<ThreadCpu> {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        parse(&text)
    }
}

fn parse(text: &str) -> Option<ThreadCpu> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse::<u64>);
    let used_ns = numbers.next()?.ok()?;
    let waited_ns = numbers.next()?.ok()?;
    Some(ThreadCpu { used_ns, waited_ns })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_two_numbers_are_used_and_waited() {
        let expected = ThreadCpu {
            used_ns: 15,
            waited_ns: 7,
        };
        assert_eq!(parse("15 7 3\n"), Some(expected));
        assert_eq!(parse(""), None);
    }
}
