// SPDX-License-Identifier: GPL-2.0-only
/*
 * The PCI drivers, and the auxiliary devices and drivers of those models that have them. Like a PF of mlx5_core, a
 * function of that driver other than a VF gets scalable functions, and no management device of its own.
 */
#include <linux/module.h>
#include <linux/slab.h>
#include "testnic.h"

uint pairs = 4;
module_param(pairs, uint, 0644);
MODULE_PARM_DESC(pairs, "queue pairs that a function can have, 1 to 16");
bool vport_mac;
module_param(vport_mac, bool, 0644);
MODULE_PARM_DESC(vport_mac, "functions of mlx5_core have a MAC, not zero");
uint vport_mtu = 1500;
module_param(vport_mtu, uint, 0644);
MODULE_PARM_DESC(vport_mtu, "MTU of a function");
uint zero_macs;
module_param(zero_macs, uint, 0444);
MODULE_PARM_DESC(zero_macs, "devices that were requested with F_MAC but without a MAC: mlx5_vdpa's path for this error may crash");
static uint scalable_functions = 2;
module_param(scalable_functions, uint, 0644);
MODULE_PARM_DESC(scalable_functions, "of a function of mlx5_core that is not a VF");

#define FIRST_SFNUM 88

/* A device on the auxiliary bus, whose driver makes a function of it. */
struct child {
	struct auxiliary_device aux;
	const struct model *model;
	struct pci_dev *pci;
	struct list_head list;
};

/* The data of a PCI function while it is bound. */
struct bound {
	struct function *function;	/* NULL: its children have one each */
	struct list_head children;
	u16 vendor, device, subsystem_vendor, subsystem_device;	/* its own */
};

static struct pci_driver drivers[8];

static ssize_t sfnum_show(struct device *device, struct device_attribute *attribute, char *text)
{
	return sysfs_emit(text, "%u\n", FIRST_SFNUM + to_auxiliary_dev(device)->id);
}
static DEVICE_ATTR_RO(sfnum);
static struct attribute *scalable_attrs[] = { &dev_attr_sfnum.attr, NULL };
ATTRIBUTE_GROUPS(scalable);

static void child_release(struct device *device)
{
	kfree(container_of(to_auxiliary_dev(device), struct child, aux));
}

static int child_add(struct bound *bound, const struct model *model, struct pci_dev *pci, const char *name, int id)
{
	struct child *child = kzalloc(sizeof(*child), GFP_KERNEL);
	int err;

	if (!child)
		return -ENOMEM;
	child->model = model;
	child->pci = pci;
	child->aux.name = name;
	child->aux.id = id;
	child->aux.dev.parent = &pci->dev;
	child->aux.dev.release = child_release;
	child->aux.dev.groups = pci->is_virtfn ? NULL : scalable_groups;
	err = auxiliary_device_init(&child->aux);
	if (err) {
		kfree(child);
		return err;
	}
	err = __auxiliary_device_add(&child->aux, model->driver);
	if (err) {
		auxiliary_device_uninit(&child->aux);
		return err;
	}
	list_add_tail(&child->list, &bound->children);
	return 0;
}

static void set_ids(struct pci_dev *pci, u16 vendor, u16 device, u16 subsystem_vendor, u16 subsystem_device)
{
	pci->vendor = vendor;
	pci->device = device;
	pci->subsystem_vendor = subsystem_vendor;
	pci->subsystem_device = subsystem_device;
}

static void remove(struct pci_dev *pci)
{
	struct bound *bound = pci_get_drvdata(pci);
	struct child *child, *next;

	list_for_each_entry_safe(child, next, &bound->children, list) {
		list_del(&child->list);
		auxiliary_device_delete(&child->aux);
		auxiliary_device_uninit(&child->aux);
	}
	if (bound->function)
		function_destroy(bound->function);
	set_ids(pci, bound->vendor, bound->device, bound->subsystem_vendor, bound->subsystem_device);
	kfree(bound);
}

static int probe(struct pci_dev *pci, const struct pci_device_id *id)
{
	const struct model *model = &models[to_pci_driver(pci->dev.driver) - drivers];
	struct bound *bound = kzalloc(sizeof(*bound), GFP_KERNEL);
	int i, err = 0;

	if (!bound)
		return -ENOMEM;
	INIT_LIST_HEAD(&bound->children);
	bound->vendor = pci->vendor;
	bound->device = pci->device;
	bound->subsystem_vendor = pci->subsystem_vendor;
	bound->subsystem_device = pci->subsystem_device;
	set_ids(pci, model->vendor, model->device, model->subsystem_vendor, model->subsystem_device);
	pci_set_drvdata(pci, bound);
	if (model->scalable && !pci->is_virtfn) {
		for (i = 0; i < scalable_functions && !err; i++)
			err = child_add(bound, model, pci, "sf", i);
	} else if (model->vf_child) {
		err = child_add(bound, model, pci, model->vf_child, PCI_FUNC(pci->devfn));
	} else {
		bound->function = function_create(model, pci, &pci->dev);
		if (IS_ERR(bound->function)) {
			err = PTR_ERR(bound->function);
			bound->function = NULL;
		}
	}
	if (err)
		remove(pci);
	return err;
}

static int child_probe(struct auxiliary_device *aux, const struct auxiliary_device_id *id)
{
	struct child *child = container_of(aux, struct child, aux);
	struct function *function = function_create(child->model, child->pci, &aux->dev);

	if (IS_ERR(function))
		return PTR_ERR(function);
	auxiliary_set_drvdata(aux, function);
	return 0;
}

static void child_remove(struct auxiliary_device *aux)
{
	function_destroy(auxiliary_get_drvdata(aux));
}

static const struct auxiliary_device_id scalable_ids[] = { { .name = "mlx5_core.sf" }, { } };
static const struct auxiliary_device_id pds_ids[] = { { .name = "pds_core.vDPA" }, { } };
static struct auxiliary_driver scalable_driver = {
	.name = "sf", .probe = child_probe, .remove = child_remove, .id_table = scalable_ids,
};
static struct auxiliary_driver pds_driver = {
	.name = "vDPA", .probe = child_probe, .remove = child_remove, .id_table = pds_ids,
};

static int __init testnic_init(void)
{
	int i, err;

	BUILD_BUG_ON(ARRAY_SIZE(drivers) < 4);
	err = __auxiliary_driver_register(&scalable_driver, THIS_MODULE, "mlx5_core");
	if (err)
		return err;
	err = __auxiliary_driver_register(&pds_driver, THIS_MODULE, "pds_vdpa");
	if (err)
		goto undo_scalable;
	for (i = 0; i < model_count; i++) {
		drivers[i].name = models[i].driver;
		drivers[i].probe = probe;
		drivers[i].remove = remove;
		err = pci_register_driver(&drivers[i]);
		if (err)
			goto undo_pci;
	}
	return 0;

undo_pci:
	while (i-- > 0)
		pci_unregister_driver(&drivers[i]);
	auxiliary_driver_unregister(&pds_driver);
undo_scalable:
	auxiliary_driver_unregister(&scalable_driver);
	return err;
}

static void __exit testnic_exit(void)
{
	int i;

	for (i = model_count; i-- > 0;)
		pci_unregister_driver(&drivers[i]);
	auxiliary_driver_unregister(&pds_driver);
	auxiliary_driver_unregister(&scalable_driver);
}
module_init(testnic_init);
module_exit(testnic_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("a NIC with the rules of vendors' vDPA drivers, for tests");
