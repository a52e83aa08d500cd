"""The sender: it runs beside and after kernels and turns journals into runs. Standard library only."""
