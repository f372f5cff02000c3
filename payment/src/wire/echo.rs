//! A client's value in a message to that client: bounded, one line.

/// How much of a value is repeated.
const MAX_ECHO: usize = 64;

pub(super) fn echo(value: &str) -> String {
    value
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .take(MAX_ECHO)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_short_and_has_no_control_characters() {
        assert_eq!(echo("a\nb\u{7f}"), "a?b?");
        assert_eq!(echo(&"\u{540d}".repeat(100)).chars().count(), MAX_ECHO);
    }
}
