/* What of DPDK's environment abstraction layer (EAL) is bound, and what its headers offer as macros only. */
#include <rte_config.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_malloc.h>
#include <rte_memory.h>
#include <rte_memzone.h>
#include <rte_version.h>
#include <rte_vfio.h>

/* rte_errno is a thread-local variable behind a macro. */
static inline int sledge_rte_errno(void)
{
	return rte_errno;
}
