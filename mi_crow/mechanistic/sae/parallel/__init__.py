"""How several processes train one SAE: the gradients they sum, the mesh they form."""
