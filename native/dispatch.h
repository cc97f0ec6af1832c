// Which instruction sets this build has, which this processor can run, and which one is in use.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "kernels.h"

namespace lamina {

std::vector<std::string> available_isas();  // slowest first
std::string current_isa();                  // LAMINA_ISA if set and available, else the fastest
bool choose_isa(const std::string& name);  // for engines made from now on; false when not available
std::string requested_isa();  // LAMINA_ISA's value if it could not be honoured, else empty
const KernelSet& current_kernels();
std::vector<std::pair<std::string, bool>> cpu_features();

}  // namespace lamina
