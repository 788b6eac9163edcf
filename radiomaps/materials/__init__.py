"""Materials of walls, roofs and ground: ITU-R P.2040 and P.527 from 100 MHz to 100 GHz, and user-defined tables."""

from radiomaps.materials.itu import ITU_MATERIALS, Properties
from radiomaps.materials.material import Material, materials_of, materials_used, read_materials

__all__ = ["ITU_MATERIALS", "Material", "Properties", "materials_of", "materials_used", "read_materials"]
