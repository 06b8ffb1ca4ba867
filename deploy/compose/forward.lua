-- Radiographs go to the node as they come; what the node itself sent goes nowhere.
local radiographs = { CR = true, DX = true }

function OnStoredInstance(instance, tags, metadata, origin)
   if radiographs[tags['Modality']] and metadata['RemoteAET'] ~= 'OPENTRIAGE' then
      SendToModality(instance, 'opentriage')
   end
end
