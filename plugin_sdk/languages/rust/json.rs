//! JSON (RFC 8259) as a tree of values.

use std::fmt::{self, Write};

/// Deeper nesting than this is refused: a payload must not be able to exhaust the stack.
const DEEPEST: usize = 64;

/// A value. Objects keep the order of their members, numbers their text.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    pub fn object() -> Json {
        Json::Object(Vec::new())
    }

    pub fn list() -> Json {
        Json::List(Vec::new())
    }

    /// The value in `source`, `None` if it is not JSON or is nested more than 64 deep.
    pub fn parse(source: &str) -> Option<Json> {
        let mut reader = Reader { text: source, at: 0 };
        let value = reader.value(0)?;
        reader.skip();
        if reader.at == source.len() {
            Some(value)
        } else {
            None
        }
    }

    /// The member `name` of an object.
    pub fn get(&self, name: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => members.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Set a member; anything but an object becomes one.
    pub fn set(&mut self, name: &str, value: impl Into<Json>) -> &mut Json {
        if !matches!(self, Json::Object(_)) {
            *self = Json::object();
        }
        if let Json::Object(members) = self {
            let value = value.into();
            match members.iter_mut().find(|(key, _)| key == name) {
                Some(member) => member.1 = value,
                None => members.push((name.to_string(), value)),
            }
        }
        self
    }

    /// Append an item; anything but a list becomes one.
    pub fn push(&mut self, value: impl Into<Json>) -> &mut Json {
        if !matches!(self, Json::List(_)) {
            *self = Json::list();
        }
        if let Json::List(items) = self {
            items.push(value.into());
        }
        self
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Json::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Json::Number(text) => text.parse().ok(),
            _ => None,
        }
    }

    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Json::Number(text) => text.parse().ok(),
            _ => None,
        }
    }

    pub fn as_list(&self) -> Option<&[Json]> {
        match self {
            Json::List(items) => Some(items),
            _ => None,
        }
    }

    /// The strings of a list; other items are left out.
    pub fn texts(&self) -> Vec<String> {
        self.as_list().unwrap_or(&[]).iter().filter_map(|item| item.as_str().map(str::to_string)).collect()
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Json {
        Json::Text(text.to_string())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Json {
        Json::Text(text)
    }
}

impl From<bool> for Json {
    fn from(flag: bool) -> Json {
        Json::Bool(flag)
    }
}

impl From<i64> for Json {
    fn from(number: i64) -> Json {
        Json::Number(number.to_string())
    }
}

impl From<f64> for Json {
    /// What JSON cannot say (infinity, not a number) becomes null.
    fn from(number: f64) -> Json {
        if number.is_finite() {
            Json::Number(format!("{:?}", number))
        } else {
            Json::Null
        }
    }
}

impl<T: Into<Json>> From<Vec<T>> for Json {
    fn from(items: Vec<T>) -> Json {
        Json::List(items.into_iter().map(Into::into).collect())
    }
}

impl fmt::Display for Json {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => out.write_str("null"),
            Json::Bool(flag) => write!(out, "{}", flag),
            Json::Number(text) => out.write_str(text),
            Json::Text(text) => quote(text, out),
            Json::List(items) => {
                out.write_char('[')?;
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.write_char(',')?;
                    }
                    item.fmt(out)?;
                }
                out.write_char(']')
            }
            Json::Object(members) => {
                out.write_char('{')?;
                for (index, (name, value)) in members.iter().enumerate() {
                    if index > 0 {
                        out.write_char(',')?;
                    }
                    quote(name, out)?;
                    out.write_char(':')?;
                    value.fmt(out)?;
                }
                out.write_char('}')
            }
        }
    }
}

fn quote(text: &str, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    out.write_char('"')?;
    let mut from = 0;
    for (index, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.write_str(&text[from..index])?;
        from = index + 1;
        match byte {
            b'"' => out.write_str("\\\"")?,
            b'\\' => out.write_str("\\\\")?,
            _ => write!(out, "\\u{:04x}", byte)?,
        }
    }
    out.write_str(&text[from..])?;
    out.write_char('"')
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn took(&mut self, word: &str) -> bool {
        let found = self.text.as_bytes()[self.at..].starts_with(word.as_bytes());
        if found {
            self.at += word.len();
        }
        found
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        self.skip();
        match self.peek()? {
            b'{' => self.object(depth),
            b'[' => self.list(depth),
            b'"' => self.string().map(Json::Text),
            b't' if self.took("true") => Some(Json::Bool(true)),
            b'f' if self.took("false") => Some(Json::Bool(false)),
            b'n' if self.took("null") => Some(Json::Null),
            _ => self.number(),
        }
    }

    fn list(&mut self, depth: usize) -> Option<Json> {
        self.at += 1;
        let mut items = Vec::new();
        self.skip();
        if depth >= DEEPEST {
            return None;
        }
        if self.took("]") {
            return Some(Json::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.skip();
            if self.took("]") {
                return Some(Json::List(items));
            }
            if !self.took(",") {
                return None;
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<Json> {
        self.at += 1;
        let mut object = Json::object();
        self.skip();
        if depth >= DEEPEST {
            return None;
        }
        if self.took("}") {
            return Some(object);
        }
        loop {
            self.skip();
            let name = self.string()?;
            self.skip();
            if !self.took(":") {
                return None;
            }
            let value = self.value(depth + 1)?;
            object.set(&name, value);
            self.skip();
            if self.took("}") {
                return Some(object);
            }
            if !self.took(",") {
                return None;
            }
        }
    }

    fn digits(&mut self) -> bool {
        let begin = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at > begin
    }

    fn number(&mut self) -> Option<Json> {
        let begin = self.at;
        self.took("-");
        if !self.took("0") && !self.digits() {
            return None;
        }
        if self.took(".") && !self.digits() {
            return None;
        }
        if self.took("e") || self.took("E") {
            let _ = self.took("+") || self.took("-");
            if !self.digits() {
                return None;
            }
        }
        Some(Json::Number(self.text[begin..self.at].to_string()))
    }

    fn string(&mut self) -> Option<String> {
        if !self.took("\"") {
            return None;
        }
        let mut text = String::new();
        loop {
            let begin = self.at;
            while !matches!(self.peek()?, b'"' | b'\\' | 0..=0x1f) {
                self.at += 1;
            }
            text.push_str(&self.text[begin..self.at]);
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(text);
                }
                b'\\' => {
                    self.at += 1;
                    text.push(self.escape()?);
                }
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let which = self.peek()?;
        self.at += 1;
        Some(match which {
            b'"' | b'\\' | b'/' => which as char,
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.point(),
            _ => return None,
        })
    }

    /// Half a surrogate pair, which UTF-8 cannot carry, becomes U+FFFD.
    fn point(&mut self) -> Option<char> {
        let mut point = self.unit()?;
        if (0xD800..0xDC00).contains(&point) {
            let back = self.at;
            match if self.took("\\u") { self.unit() } else { None } {
                Some(low) if (0xDC00..0xE000).contains(&low) => {
                    point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
                }
                _ => self.at = back,
            }
        }
        Some(char::from_u32(point).unwrap_or('\u{FFFD}'))
    }

    fn unit(&mut self) -> Option<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4)?;
        self.at += 4;
        digits.iter().try_fold(0, |value, digit| Some(value * 16 + (*digit as char).to_digit(16)?))
    }
}
