// See the header.
#include "common/json.h"

template class nlohmann::detail::serializer<nlohmann::json>;
template class nlohmann::detail::lexer<nlohmann::json, vdpa::JsonText>;
template class nlohmann::detail::parser<nlohmann::json, vdpa::JsonText>;
