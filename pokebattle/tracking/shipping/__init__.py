"""What runs beside and after kernels: it turns journals into runs. Standard library only."""
