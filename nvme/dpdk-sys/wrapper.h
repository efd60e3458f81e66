/* What of DPDK's environment abstraction layer (EAL) is bound, and what its headers offer as macros only. */
#include <rte_config.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_malloc.h>
#include <rte_memory.h>
#include <rte_version.h>
#include <rte_vfio.h>

/* rte_errno is a thread-local variable behind a macro. */
static inline int sledge_rte_errno(void)
{
	return rte_errno;
}

/* "Memory of any node" is an enumerator in some versions and a macro in others. */
static inline int sledge_socket_id_any(void)
{
	return SOCKET_ID_ANY;
}

/* A page of the EAL's own; its fields lie in unions without names. */
static inline uint64_t sledge_memseg_iova(const struct rte_memseg *page)
{
	return page->iova;
}

static inline uint64_t sledge_memseg_start(const struct rte_memseg *page)
{
	return page->addr_64;
}

static inline uint64_t sledge_memseg_list_start(const struct rte_memseg_list *list)
{
	return list->addr_64;
}
