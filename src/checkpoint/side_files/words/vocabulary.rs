//! The words that a tokenizer gives to the rows of its model.

use std::collections::{BTreeMap, HashMap};

use crate::checkpoint::side_files::words::added::AddedToken;
use crate::checkpoint::side_files::words::spelling::Spelling;

/// The most words that a vocabulary may have: the largest in use have about a million.
pub(crate) const MOST_WORDS: usize = 1 << 22;

/// The words of a vocabulary by their ids, which are rows of the embedding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vocabulary {
    /// Ids and words, by id; every id and every word once.
    pub(super) list: Vec<(u64, String)>,
    /// Those that were added to the tokenizer's own, by their text.
    pub(crate) added: BTreeMap<String, AddedToken>,
    /// How they are spelled.
    pub(crate) spelling: Spelling,
    /// The file that most of them come from; none where there is no tokenizer.
    pub(crate) file: Option<String>,
    /// Why there are no words though there are files.
    pub(crate) unread: Option<String>,
    /// Whether the tokenizer's code may know words that no file names.
    pub(crate) open: bool,
    /// An id that two words have; the first one is in the list.
    pub(crate) doubled: Option<(u64, [String; 2])>,
    /// The chat template, as it stands in its file.
    pub(crate) chat_template: Option<String>,
}

/// Ids and words in the making: later ones replace earlier ones.
#[derive(Debug, Default)]
pub(crate) struct Words {
    entries: Vec<(u64, String)>,
}

impl Words {
    /// One more; refuses more than any vocabulary has.
    pub(crate) fn add(&mut self, id: u64, word: String) -> std::result::Result<(), String> {
        if self.entries.len() >= MOST_WORDS {
            return Err(format!("more than {MOST_WORDS} words"));
        }
        self.entries.push((id, word));
        Ok(())
    }

    /// Words and ids, in order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, u64)> {
        self.entries.iter().map(|(id, word)| (word.as_str(), *id))
    }

    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(_, word)| word.as_str())
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl Vocabulary {
    /// A vocabulary of a tokenizer's own words and of those that were added, which win where an id or
    /// a word is in both. Of a word that is there twice the last id counts, as Python takes it.
    pub(crate) fn new(words: Words, added: Vec<(u64, AddedToken)>) -> Vocabulary {
        let mut vocabulary = Vocabulary::default();
        let mut entries = words.entries;
        if !added.is_empty() {
            let ids: std::collections::HashSet<u64> = added.iter().map(|(id, _)| *id).collect();
            entries.retain(|(id, _)| !ids.contains(id));
            for (id, token) in added {
                entries.push((id, token.content.clone()));
                vocabulary.added.insert(token.content.clone(), token);
            }
        }
        let mut last: HashMap<&str, usize> = HashMap::with_capacity(entries.len());
        for (place, (_, word)) in entries.iter().enumerate() {
            last.insert(word, place);
        }
        let mut keep = vec![last.len() == entries.len(); entries.len()];
        if last.len() != entries.len() {
            last.values().for_each(|place| keep[*place] = true);
        }
        drop(last);
        let mut keep = keep.into_iter();
        entries.retain(|_| keep.next() == Some(true));
        entries.sort_by_key(|(id, _)| *id);
        let doubled = entries.windows(2).find(|pair| pair[0].0 == pair[1].0);
        vocabulary.doubled =
            doubled.map(|pair| (pair[0].0, [pair[0].1.clone(), pair[1].1.clone()]));
        entries.dedup_by_key(|(id, _)| *id);
        vocabulary.list = entries;
        vocabulary
    }

    /// One more added token, of an id and a text that are not there.
    pub(crate) fn insert(&mut self, id: u64, token: AddedToken) {
        let place = self.list.partition_point(|(other, _)| *other < id);
        self.list.insert(place, (id, token.content.clone()));
        self.added.insert(token.content.clone(), token);
    }

    /// Ids and words, by id.
    pub fn words(&self) -> impl DoubleEndedIterator<Item = (u64, &str)> + Clone {
        self.list.iter().map(|(id, word)| (*id, word.as_str()))
    }

    /// The word of a row.
    pub fn word(&self, id: u64) -> Option<&str> {
        let place = self.list.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.list.get(place).map(|(_, word)| word.as_str())
    }

    /// Ids by their words.
    pub fn ids(&self) -> HashMap<&str, u64> {
        self.list.iter().map(|(id, word)| (word.as_str(), *id)).collect()
    }

    /// How many words there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether no word is known.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How the words are spelled.
    pub fn spelling(&self) -> &Spelling {
        &self.spelling
    }

    /// The file that most words come from; none without a tokenizer.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// Why no word is known though there are files.
    pub fn unread(&self) -> Option<&str> {
        self.unread.as_deref()
    }

    /// Whether the tokenizer's code may know words that no file names.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// An id that two words have.
    pub fn doubled(&self) -> Option<(u64, [&str; 2])> {
        self.doubled.as_ref().map(|(id, [a, b])| (*id, [a.as_str(), b.as_str()]))
    }

    /// The chat template, as it stands in its file.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }
}

#[cfg(test)]
impl Vocabulary {
    /// Words of these ids, for tests of the decisions.
    pub(crate) fn of_words(words: &[(u64, &str)]) -> Vocabulary {
        let mut list = Words::default();
        words.iter().for_each(|(id, word)| list.add(*id, (*word).to_owned()).expect("few"));
        Vocabulary { file: Some("tokenizer.json".to_owned()), ..Vocabulary::new(list, Vec::new()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_tokens_win_and_of_a_word_twice_the_last_counts() {
        let mut words = Words::default();
        for (id, word) in [(0, "a"), (1, "b"), (2, "a"), (3, "c"), (3, "d")] {
            words.add(id, word.to_owned()).unwrap();
        }
        let added = vec![(1, AddedToken::plain("<x>".to_owned()))];
        let vocabulary = Vocabulary::new(words, added);
        let found: Vec<_> = vocabulary.words().collect();
        assert_eq!(found, [(1, "<x>"), (2, "a"), (3, "c")]);
        assert_eq!(vocabulary.doubled(), Some((3, ["c", "d"])));
        assert_eq!((vocabulary.word(2), vocabulary.word(0)), (Some("a"), None));
        assert_eq!(vocabulary.ids().get("c"), Some(&3));
    }
}
