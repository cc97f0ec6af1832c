// Which instruction sets this build has, which this processor can run, and which one is in use.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "kernels.h"
#include "kernels_byte.h"
#include "kernels_half.h"

namespace lamina {

std::vector<std::string> available_isas();  // slowest first
std::string current_isa();                  // LAMINA_ISA if set and available, else the fastest
bool choose_isa(const std::string& name);  // for engines made from now on; false when not available
std::string requested_isa();  // LAMINA_ISA's value if it could not be honoured, else empty
const KernelSet& current_kernels();

// The same for products in bfloat16: "avx512_bf16", "amx". Only beside the avx512 kernels, whose
// choice asks for such a processor; half_kernels() is null elsewhere.
std::vector<std::string> available_half_isas();  // slowest first
const HalfKernels* half_kernels();
bool choose_half_isa(const std::string& name);

// The same for products of bytes: "plain", which is everywhere, and "avx512_vnni", only beside the
// avx512 kernels.
std::vector<std::string> available_byte_isas();  // slowest first
const ByteKernels& byte_kernels();
bool choose_byte_isa(const std::string& name);

std::vector<std::pair<std::string, bool>> cpu_features();

}  // namespace lamina
