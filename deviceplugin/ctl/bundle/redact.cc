#include "deviceplugin/ctl/bundle/redact.h"

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <string>
#include <string_view>

namespace vdpa::ctl {
namespace {

constexpr std::string_view kRemoved = "<removed>";
constexpr std::string_view kWords[] = {"token",  "password",   "passwd",   "secret",
                                       "apikey", "credential", "key-data", "private"};

bool isNameCharacter(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == '.';
}

std::string lowerCase(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower;
}

bool namesSecret(std::string_view name) {
  const std::string lower = lowerCase(name);
  return std::any_of(std::begin(kWords), std::end(kWords),
                     [&](std::string_view word) { return lower.find(word) != std::string::npos; });
}

// The end of a value that starts at `start`: of a quoted one its quote, else white space or a
// separator. In JSON inside JSON, both quotes have a backslash before them.
size_t endOfValue(std::string_view text, size_t start) {
  if (start > 0 && text[start - 1] == '\\')
    return std::min(text.find("\\\"", start + 1), text.size());
  if (start < text.size() && (text[start] == '"' || text[start] == '\'')) {
    const char quote = text[start];
    size_t end = start + 1;
    while (end < text.size() && text[end] != quote && text[end] != '\n')
      end += text[end] == '\\' ? 2 : 1;
    return std::min(end, text.size());
  }
  const size_t end = text.find_first_of(" \t\r\n,;}]\"'", start);
  return std::min(end, text.size());
}

// Where the value of the name that ends at `end` begins; npos if there is none.
size_t startOfValue(std::string_view text, size_t end) {
  bool separated = false;
  for (size_t i = end; i < text.size(); ++i) {
    const char c = text[i];
    if (c == ':' || c == '=') {
      if (separated) return i;
      separated = true;
    } else if (c == '\\' || ((c == '"' || c == '\'') && !separated)) {
      continue;  // the name's closing quote
    } else if (c != ' ' && c != '\t') {
      return separated && c != '{' && c != '[' && c != '\n' && c != '\r' ? i : std::string::npos;
    }
  }
  return std::string::npos;
}

// A private key in PEM: through its last line, or the rest.
size_t endOfKey(std::string_view text, size_t start) {
  const size_t end = text.find("-----END", start);
  const size_t dashes = end == std::string::npos ? end : text.find("-----", end + 8);
  return dashes == std::string::npos ? text.size() : dashes + 5;
}

}  // namespace

std::string withoutSecrets(std::string_view text) {
  std::string clean;
  clean.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    if (text.substr(i).starts_with("-----BEGIN")) {
      const size_t line = std::min(text.find('\n', i), text.size());
      if (text.substr(i, line - i).find("PRIVATE KEY") != std::string::npos) {
        clean += kRemoved;
        i = endOfKey(text, i);
        continue;
      }
    }
    if (!isNameCharacter(text[i])) {
      clean += text[i++];
      continue;
    }
    size_t end = i;
    while (end < text.size() && isNameCharacter(text[end])) ++end;
    const std::string_view word = text.substr(i, end - i);
    if (word.starts_with("eyJ") && word.size() > 20) {  // a JSON web token
      clean += kRemoved;
      i = end;
      continue;
    }
    clean += word;
    i = end;
    size_t value = std::string::npos;
    if (lowerCase(word) == "bearer" && end < text.size() && text[end] == ' ')
      value = text.find_first_not_of(' ', end);
    else if (namesSecret(word))
      value = startOfValue(text, end);
    if (value == std::string::npos || value >= text.size()) continue;
    clean += text.substr(i, value - i);
    i = endOfValue(text, value);
    if (text[value] == '"' || text[value] == '\'') clean += text[value];
    clean += kRemoved;
  }
  return clean;
}

}  // namespace vdpa::ctl
