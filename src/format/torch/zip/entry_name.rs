//! Checks names of zip entries. They are compared, never used as paths, and refused where two
//! readers could disagree about them.

use std::borrow::Cow;

/// The name as text, or what is wrong with it.
///
/// Accepted are relative names of plain components with `/` between them, and one `/` at the end
/// (a directory).
pub(super) fn check(bytes: &[u8]) -> Result<&str, &'static str> {
    let name = std::str::from_utf8(bytes).map_err(|_| "a name that is not UTF-8")?;
    if name.is_empty() {
        return Err("an empty name");
    }
    if name.contains('\0') {
        return Err("a name with a NUL");
    }
    if name.contains('\\') {
        return Err("a name with a backslash");
    }
    if name.starts_with('/') {
        return Err("an absolute name");
    }
    let path = name.strip_suffix('/').unwrap_or(name);
    if path.split('/').any(|component| matches!(component, "" | "." | "..")) {
        return Err("a name with an empty, `.` or `..` component");
    }
    Ok(name)
}

/// The name as file systems that ignore case see it: two entries may not share it.
pub(super) fn folded(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('/').unwrap_or(name);
    // Names as torch writes them fold to themselves, and are not copied.
    let same = |byte: u8| byte.is_ascii() && !byte.is_ascii_uppercase();
    if name.bytes().all(same) { Cow::Borrowed(name) } else { Cow::Owned(name.to_lowercase()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_torch_writes_are_accepted() {
        for name in ["archive/data.pkl", "x/.data/serialization_id", "a.b/data/", "a b/é"] {
            assert_eq!(check(name.as_bytes()), Ok(name));
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["", "/", "/a", "a//b", "../a", "a/../b", "./a", "a/.", "a\\b", "a\0b"] {
            assert!(check(name.as_bytes()).is_err(), "{name:?}");
        }
        assert!(check(b"\xff").is_err());
    }

    #[test]
    fn names_that_differ_by_case_fold_to_one() {
        assert_eq!(folded("A/Data/"), folded("a/data"));
    }
}
