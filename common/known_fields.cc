#include "common/known_fields.h"

#include <fmt/core.h>
#include <google/protobuf/unknown_field_set.h>

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/version.h"

namespace vdpa {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// The last field of each message below SetDevicesRequest in release 0.1.0; messages that it does
// not have are absent. This never changes.
const std::map<std::string, int> kLastOf010 = {
    {"SetDevicesRequest", 1}, {"Resource", 4}, {"SocketOptions", 4},
    {"SoftwareSwitch", 4},    {"Device", 6},   {"DpdkDevice", 3},
    {"KernelDevice", 5}};

// They only describe facts.
const std::set<std::string> kMayBeIgnored = {"KernelDevice.parent"};

std::string numbered(const Message& message, int number) {
  return fmt::format("{}.{}", message.GetDescriptor()->name(), number);
}

void forEachPart(const Message& message, const FieldDescriptor& field,
                 const std::function<void(const Message&)>& function) {
  const auto& reflection = *message.GetReflection();
  if (field.cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) return;
  if (!field.is_repeated()) return function(reflection.GetMessage(message, &field));
  for (int i = 0; i < reflection.FieldSize(message, &field); ++i)
    function(reflection.GetRepeatedMessage(message, &field, i));
}

std::vector<const FieldDescriptor*> fieldsOf(const Message& message) {
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  return fields;
}

void collectUnknown(const Message& message, std::set<std::string>& found) {
  const auto& unknown = message.GetReflection()->GetUnknownFields(message);
  for (int i = 0; i < unknown.field_count(); ++i)
    found.insert(numbered(message, unknown.field(i).number()));
  for (const auto* field : fieldsOf(message))
    forEachPart(message, *field, [&](const Message& part) { collectUnknown(part, found); });
}

using Known = std::function<bool(const Message& message, int number)>;

void collectNotKnown(const Known& known, const Message& message, std::set<std::string>& found) {
  for (const auto* field : fieldsOf(message)) {
    const std::string name = fmt::format("{}.{}", message.GetDescriptor()->name(), field->name());
    if (kMayBeIgnored.contains(name)) continue;
    if (!known(message, field->number()))
      found.insert(name);
    else
      forEachPart(message, *field,
                  [&](const Message& part) { collectNotKnown(known, part, found); });
  }
}

}  // namespace

datapath::v1::Receiver receiverOf(const Message& request) {
  std::set<std::string> unknown;
  collectUnknown(request, unknown);
  datapath::v1::Receiver receiver;
  receiver.set_version(programVersion());
  receiver.mutable_unknown_fields()->Assign(unknown.begin(), unknown.end());
  return receiver;
}

std::set<std::string> unknownTo(const datapath::v1::Receiver* receiver, const Message& message) {
  Known known = [](const Message& part, int number) {
    const auto last = kLastOf010.find(part.GetDescriptor()->name());
    return last != kLastOf010.end() && number <= last->second;
  };
  if (receiver) {
    const std::set<std::string> unknown(receiver->unknown_fields().begin(),
                                        receiver->unknown_fields().end());
    known = [unknown](const Message& part, int number) {
      return !unknown.contains(numbered(part, number));
    };
  }
  std::set<std::string> found;
  collectNotKnown(known, message, found);
  return found;
}

}  // namespace vdpa
