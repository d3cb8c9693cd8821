#include "deviceplugin/ctl/bundle/redact.h"

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>

namespace vdpa::ctl {
namespace {

constexpr std::string_view kRemoved = "<removed>";
// Anywhere in a name, and as a whole word of one ("author" is none).
constexpr std::string_view kParts[] = {"token",  "password",   "passwd",   "secret",
                                       "apikey", "credential", "key-data", "private"};
constexpr std::string_view kWords[] = {"auth", "auths", "psk", "authorization"};
constexpr std::string_view kSchemes[] = {"basic", "bearer", "digest", "negotiate"};
constexpr auto npos = std::string_view::npos;

bool isNameCharacter(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == '.';
}

bool isQuote(char c) {
  return c == '"' || c == '\'';
}

std::string lowerCase(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower;
}

template <size_t count>
bool isOneOf(std::string_view word, const std::string_view (&words)[count]) {
  return std::find(std::begin(words), std::end(words), word) != std::end(words);
}

bool namesSecret(std::string_view name) {
  const std::string lower = lowerCase(name);
  if (std::any_of(std::begin(kParts), std::end(kParts),
                  [&](std::string_view part) { return lower.find(part) != std::string::npos; }))
    return true;
  for (size_t start = 0; start <= lower.size();) {
    const size_t end = std::min(lower.find_first_of("-_.", start), lower.size());
    if (isOneOf(std::string_view(lower).substr(start, end - start), kWords)) return true;
    start = end + 1;
  }
  return false;
}

size_t endOfLine(std::string_view text, size_t at) {
  return std::min(text.find('\n', at), text.size());
}

size_t startOfLine(std::string_view text, size_t at) {
  const size_t before = at == 0 ? npos : text.rfind('\n', at - 1);
  return before == npos ? 0 : before + 1;
}

// Whether the quote at `at` begins or ends a string: in JSON inside JSON, whose quotes have a
// backslash before them (`inner`), or not.
bool delimits(std::string_view text, size_t at, bool inner) {
  size_t backslashes = 0;
  while (backslashes < at && text[at - backslashes - 1] == '\\') ++backslashes;
  return inner ? backslashes % 4 == 1 : backslashes % 2 == 0;
}

// The end of a string whose first quote is at `start`: its last quote, with the backslash before
// it, or the end of the line.
size_t endOfString(std::string_view text, size_t start, bool inner) {
  for (size_t i = start + 1; i < text.size() && text[i] != '\n'; ++i)
    if (text[i] == text[start] && delimits(text, i, inner)) return inner ? i - 1 : i;
  return endOfLine(text, start);
}

// Behind the bracket that closes the one at `start`.
size_t endOfBrackets(std::string_view text, size_t start, bool inner) {
  size_t depth = 0;
  for (size_t i = start; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') {
      if (!delimits(text, i, inner)) {
        if (inner) return i;  // of the string around it
        continue;
      }
      i = endOfString(text, i, inner);
      if (inner) ++i;  // the quote
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if ((c == '}' || c == ']') && --depth == 0) {
      return i + 1;
    }
  }
  return text.size();
}

size_t indentation(std::string_view line) {
  return std::min(line.find_first_not_of(' '), line.size());
}

// In YAML, a value in the lines below its key's: the end of those that are indented more than the
// key, or are items of a list.
size_t endOfBlock(std::string_view text, size_t key) {
  const size_t line = startOfLine(text, key);
  const size_t first = text.find_first_not_of(" -", line);
  const size_t depth = std::min(first, key) - line;
  size_t end = endOfLine(text, key);
  for (size_t next = end; next < text.size();) {
    const size_t start = next + 1;
    next = endOfLine(text, start);
    const std::string_view below = text.substr(start, next - start);
    const size_t indented = indentation(below);
    if (indented == below.size()) continue;  // empty
    const bool item = below.substr(indented).starts_with("- ") && indented == depth;
    if (indented <= depth && !item) break;
    end = next;
  }
  return end;
}

// Of an unquoted value: white space or a separator, or the whole line if it is the key's alone.
size_t endOfWord(std::string_view text, size_t start, bool wholeLine) {
  if (wholeLine) {
    const size_t end = text.find_first_of("\r\n", start);
    return std::min(end, text.size());
  }
  return std::min(text.find_first_of(" \t\r\n,;}]\"'", start), text.size());
}

// Where the value of the name that ends at `end` begins, which may be a line's end; npos if there
// is none.
size_t startOfValue(std::string_view text, size_t end) {
  bool separated = false;
  for (size_t i = end; i < text.size(); ++i) {
    const char c = text[i];
    if (c == ':' || c == '=') {
      if (separated) return i;
      separated = true;
    } else if (c == '\\' || (isQuote(c) && !separated)) {
      continue;  // the name's closing quote
    } else if (c != ' ' && c != '\t') {
      return separated ? i : npos;
    }
  }
  return npos;
}

// Whether a YAML value's first line only says that the value follows.
bool opensBlock(std::string_view text, size_t value) {
  if (text[value] == '|' || text[value] == '>')
    value = text.find_first_not_of("|>+-0123456789 \t", value);
  return value == npos || text[value] == '\n' || text[value] == '\r' || text[value] == '#';
}

// The value of an option, in the next word, or the next string of a list.
size_t startOfArgument(std::string_view text, size_t end) {
  size_t i = text.find_first_not_of("\\\"' \t\r\n,", end);
  if (i != npos && text.substr(i).starts_with("- ")) i = text.find_first_not_of(" \"'", i + 1);
  if (i == npos || i == end || text[i] == '-' || text[i] == ']') return npos;
  return i - 1 > end && isQuote(text[i - 1]) ? i - 1 : i;
}

// A private key in PEM: through its last line, or the rest.
size_t endOfKey(std::string_view text, size_t start) {
  const size_t end = text.find("-----END", start);
  const size_t dashes = end == npos ? end : text.find("-----", end + 8);
  return dashes == npos ? text.size() : dashes + 5;
}

// Reads a text from its beginning to its end, and writes what is left of it.
class Cleaner {
 public:
  explicit Cleaner(std::string_view text) : text_(text) { clean_.reserve(text.size()); }

  std::string run() {
    while (at_ < text_.size()) {
      if (skipKey() || skipUser()) continue;
      if (isNameCharacter(text_[at_]))
        word();
      else
        clean_ += text_[at_++];
    }
    return std::move(clean_);
  }

 private:
  void copyTo(size_t end) {
    clean_ += text_.substr(at_, end - at_);
    at_ = end;
  }
  void removeTo(size_t end) {
    clean_ += kRemoved;
    at_ = end;
  }

  bool skipKey() {
    if (!text_.substr(at_).starts_with("-----BEGIN")) return false;
    const size_t line = endOfLine(text_, at_);
    if (text_.substr(at_, line - at_).find("PRIVATE KEY") == npos) return false;
    removeTo(endOfKey(text_, at_));
    return true;
  }

  // Name and password in a URL.
  bool skipUser() {
    if (!text_.substr(at_).starts_with("://")) return false;
    const size_t start = at_ + 3;
    const size_t end = std::min(text_.find_first_of("/?# \t\r\n\"'<>", start), text_.size());
    const size_t user = text_.substr(start, end - start).rfind('@');
    if (user == npos) return false;
    copyTo(start);
    removeTo(start + user);
    return true;
  }

  void word() {
    const size_t start = at_;
    size_t end = start;
    while (end < text_.size() && isNameCharacter(text_[end])) ++end;
    const std::string_view word = text_.substr(start, end - start);
    if (word.starts_with("eyJ") && word.size() > 20) return removeTo(end);  // a JSON web token
    copyTo(end);
    if (lowerCase(word) == "bearer" && end < text_.size() && text_[end] == ' ') {
      const size_t value = text_.find_first_not_of(' ', end);
      if (value != npos) removeValue(value, false);
      return;
    }
    if (!namesSecret(word)) return;
    const size_t value = startOfValue(text_, end);
    if (value == npos) {
      const size_t argument = word.starts_with("--") ? startOfArgument(text_, end) : npos;
      if (argument != npos) removeValue(argument, false);
      return;
    }
    if (opensBlock(text_, value)) {
      const size_t last = endOfBlock(text_, start);
      size_t line = endOfLine(text_, value);
      if (last > line) {
        line = text_.find_first_not_of(" \r\n", line);
        copyTo(line);
        return removeTo(last);
      }
      if (text_[value] == '\n' || text_[value] == '\r') return;
    }
    const size_t begin = startOfLine(text_, start);
    const bool first = text_.substr(begin, start - begin).find_first_not_of(" -") == npos;
    removeValue(lowerCase(word).ends_with("authorization") ? skipScheme(value) : value,
                first && text_[end] != '=');
  }

  // Of "Basic dXNlcjpwYXNz", what follows.
  size_t skipScheme(size_t value) const {
    const size_t end = text_.find_first_of(" \r\n", value);
    if (end == npos || text_[end] != ' ') return value;
    if (!isOneOf(lowerCase(text_.substr(value, end - value)), kSchemes)) return value;
    const size_t next = text_.find_first_not_of(' ', end);
    return next == npos ? value : next;
  }

  void removeValue(size_t value, bool wholeLine) {
    const char c = text_[value];
    const bool inner = value > 0 && isQuote(c) ? text_[value - 1] == '\\' : inString(value);
    copyTo(value);
    if (c == '{' || c == '[') return removeTo(endOfBrackets(text_, value, inner));
    if (!isQuote(c)) return removeTo(endOfWord(text_, value, wholeLine));
    clean_ += c;
    removeTo(endOfString(text_, value, inner));
  }

  // Whether the name before this value has quotes with a backslash.
  bool inString(size_t value) const {
    const size_t quote = text_.substr(0, value).find_last_of("\"'\n");
    return quote != npos && quote > 0 && isQuote(text_[quote]) && text_[quote - 1] == '\\';
  }

  const std::string_view text_;
  size_t at_ = 0;
  std::string clean_;
};

}  // namespace

std::string withoutSecrets(std::string_view text) {
  return Cleaner(text).run();
}

}  // namespace vdpa::ctl
