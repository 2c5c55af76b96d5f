// Functions that replace those of the CUDA runtime without a GPU: the second GPU is a T4, the version of cuDNN is the one
// that PyTorch was compiled with, the math mode of each convolution and matrix product is reported on standard error if
// GPU_MATH is set, and GPU_WITHOUT_MEMORY=cublas or =cudnn makes the library fail to allocate its handle.
#include <cublasLt.h>
#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

static bool without_memory(const char* library) {
    const char* name = getenv("GPU_WITHOUT_MEMORY");
    return name && !strcmp(name, library);
}

static void report(const char* operation, bool tf32) {
    if (getenv("GPU_MATH")) fprintf(stderr, "%s: %s\n", operation, tf32 ? "tf32" : "float32");
}

template <class Function>
static Function* next(const char* name) {
    return (Function*)dlsym(RTLD_NEXT, name);
}

static thread_local cudnnMathType_t convolution_math = CUDNN_DEFAULT_MATH;

extern "C" {
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
    cudaError_t status = next<decltype(cudaGetDeviceProperties)>("cudaGetDeviceProperties")(properties, device);
    if (device == 1) {
        strcpy(properties->name, "NVIDIA T4");
        properties->major = 7;
        properties->minor = 5;
    }
    return status;
}

cudnnStatus_t cudnnGetProperty(libraryPropertyType type, int* value) {
    *value = type == MAJOR_VERSION ? CUDNN_MAJOR : type == MINOR_VERSION ? CUDNN_MINOR : CUDNN_PATCHLEVEL;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetConvolutionMathType(cudnnConvolutionDescriptor_t, cudnnMathType_t type) {
    convolution_math = type;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnConvolutionForward(
    cudnnHandle_t, const void*, const cudnnTensorDescriptor_t, const void*, const cudnnFilterDescriptor_t, const void*,
    const cudnnConvolutionDescriptor_t, cudnnConvolutionFwdAlgo_t, void*, size_t, const void*,
    const cudnnTensorDescriptor_t, void*) {
    report("convolution", convolution_math != CUDNN_FMA_MATH);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetConvolutionForwardAlgorithm_v7(
    cudnnHandle_t, const cudnnTensorDescriptor_t, const cudnnFilterDescriptor_t, const cudnnConvolutionDescriptor_t,
    const cudnnTensorDescriptor_t, const int, int* count, cudnnConvolutionFwdAlgoPerf_t* algorithm) {
    memset(algorithm, 0, sizeof *algorithm);
    algorithm->algo = CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
    algorithm->mathType = convolution_math;
    *count = 1;
    return CUDNN_STATUS_SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t mode) {
    report("product", mode & CUBLAS_TF32_TENSOR_OP_MATH);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* descriptor, cublasComputeType_t compute, cudaDataType_t data) {
    report("product", compute == CUBLAS_COMPUTE_32F_FAST_TF32);
    return next<decltype(cublasLtMatmulDescCreate)>("cublasLtMatmulDescCreate")(descriptor, compute, data);
}

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
    if (without_memory("cublas")) return CUBLAS_STATUS_ALLOC_FAILED;
    return next<decltype(cublasCreate_v2)>("cublasCreate_v2")(handle);
}

cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
    if (without_memory("cudnn")) return CUDNN_STATUS_ALLOC_FAILED;
    return next<decltype(cudnnCreate)>("cudnnCreate")(handle);
}

const char* cudnnGetErrorString(cudnnStatus_t status) {
    return status == CUDNN_STATUS_ALLOC_FAILED ? "CUDNN_STATUS_ALLOC_FAILED" : "CUDNN_STATUS_INTERNAL_ERROR";
}
}
